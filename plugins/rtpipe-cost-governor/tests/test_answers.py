"""An answer is reserved before it begins, billed when it is over, and never longer than is paid for."""

from types import ModuleType
from typing import Any

import pytest

from rtpipe import Principal

STAGE = "cost-governor"
CREATE = {"type": "response.create", "event_id": "c"}


async def ups(kit: ModuleType, chain: Any, kind: str) -> list[Any]:
    await kit.settled(chain)
    return [event for event in chain.upstream.take() if event["type"] == kind]


async def test_a_create_waits_for_the_disk_and_is_clamped(kit: ModuleType) -> None:
    async with kit.governed() as chain:
        await kit.settled(chain)
        chain.upstream.take()
        await chain.client.send(CREATE)
        (create,) = await ups(kit, chain, "response.create")
        stamp = {"rtpipe_cost_governor": create["response"]["metadata"]["rtpipe_cost_governor"]}
        assert create == {**CREATE, "response": {"max_output_tokens": 4096, "metadata": stamp}}
        (open_one,) = await chain.plugin(STAGE).store.unsettled()
        assert open_one.amount >= 4096 * 64
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=kit.usage(100, 50, 0, (64, 0, 0), (20, 80))))
        await kit.settled(chain)
        exact = 36 * 4 + 64 * 0.4 + 50 * 32 + 20 * 24 + 80 * 64
        assert kit.spent(chain) == [7370]
        assert 7369 < exact <= 7370
        assert await chain.plugin(STAGE).store.unsettled() == []
        chain.check_fates()


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed", "incomplete"])
async def test_every_response_is_billed_however_it_ended(kit: ModuleType, status: str) -> None:
    async with kit.governed() as chain:
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=kit.usage(10, out=(1, 0)), status=status))
        await kit.settled(chain)
        assert kit.spent(chain) == [10 * 4 + 24]
        assert [entry.status async for _, entry in chain.plugin(STAGE).books.entries("")] == [status]
        assert await chain.plugin(STAGE).store.unsettled() == []


async def test_transcriptions_are_billed_by_their_own_model(kit: ModuleType) -> None:
    async with kit.governed() as chain:
        session = {"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        await chain.upstream.send({"type": "session.updated", "event_id": "e", "session": session})
        said = {
            "type": "conversation.item.input_audio_transcription.completed",
            "event_id": "t",
            "item_id": "i",
        }
        await chain.upstream.send({**said, "usage": {"type": "duration", "seconds": 30.1}})
        await kit.settled(chain)
        assert kit.spent(chain) == [3010]


async def test_near_the_cap_an_answer_is_clamped_to_what_is_left(kit: ModuleType) -> None:
    async with kit.governed(caps={"budget_usd": "0.1"}, goodbye_usd="0") as chain:
        await kit.settled(chain)
        chain.upstream.take()
        await chain.client.send(CREATE)
        (create,) = await ups(kit, chain, "response.create")
        assert create["response"]["max_output_tokens"] == 100_000 // 64


async def test_a_create_asks_for_no_more_than_it_did(kit: ModuleType) -> None:
    async with kit.governed(caps={"max_output_tokens": 500}) as chain:
        for asked, given in ((100, 100), (9000, 500), ("inf", 500)):
            await chain.client.send({**CREATE, "response": {"max_output_tokens": asked}})
            (create,) = await ups(kit, chain, "response.create")
            assert create["response"]["max_output_tokens"] == given


async def test_a_refused_create_costs_nothing(kit: ModuleType) -> None:
    async with kit.governed() as chain:
        await chain.client.send(CREATE)
        await kit.settled(chain)
        error = {"type": "error", "event_id": "e", "error": {"code": "x", "event_id": "c"}}
        await chain.upstream.send(error)
        await kit.settled(chain)
        assert await chain.plugin(STAGE).store.unsettled() == []
        assert kit.spent(chain) == []


async def test_far_from_a_cap_turns_are_not_gated_and_near_it_they_are(kit: ModuleType) -> None:
    async with kit.governed(caps={"budget_usd": "1"}) as chain:
        await kit.settled(chain)
        assert not chain.state(STAGE).gated
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=kit.usage(out=(0, 8000))))
        await kit.settled(chain)
        assert chain.state(STAGE).gated
        (update,) = [
            e for e in chain.upstream.take() if e["type"] == "session.update" and "audio" in e["session"]
        ]
        assert update["session"]["audio"]["input"]["turn_detection"]["create_response"] is False


async def test_a_voice_response_is_cut_where_its_budget_ends(kit: ModuleType) -> None:
    async with kit.governed(caps={"budget_usd": "0.1"}, goodbye_usd="0") as chain:
        await kit.settled(chain)
        chain.upstream.take()
        await chain.upstream.send(kit.created())
        await kit.settled(chain)
        delta = {
            "type": "response.output_audio.delta",
            "event_id": "d",
            "response_id": "r1",
            "delta": "A" * 64000,
        }
        seconds = 0.0
        while not (cancel := [e for e in chain.upstream.take() if e["type"] == "response.cancel"]):
            await chain.upstream.send(delta)
            seconds += 1
        assert cancel[0]["response_id"] == "r1"
        # 1562 tokens are 78 s, and a tenth for envelopes.
        assert 78 <= seconds <= 87


async def test_usage_that_is_missing_counts_as_what_was_reserved(kit: ModuleType) -> None:
    async with kit.governed() as chain:
        await chain.client.send(CREATE)
        await kit.settled(chain)
        (open_one,) = await chain.plugin(STAGE).store.unsettled()
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=None))
        await chain.upstream.send(kit.created("r2"))
        await kit.settled(chain)
        await chain.upstream.send(kit.done("r2", used=None, status="failed"))
        await kit.settled(chain)
        assert kit.spent(chain) == [open_one.amount, 0]


@pytest.mark.parametrize(("unpriced", "cost"), [("estimate", 10 * 88), ("allow", 0)])
async def test_a_model_without_a_price(kit: ModuleType, unpriced: str, cost: int) -> None:
    async with kit.governed(unpriced=unpriced, model="nobody-knows") as chain:
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=kit.usage(out=(0, 10))))
        await kit.settled(chain)
        assert kit.spent(chain) == [cost]


async def test_a_model_without_a_price_may_be_refused(kit: ModuleType) -> None:
    with pytest.raises(Exception, match="no price here"):
        async with kit.governed(unpriced="refuse", model="nobody-knows"):
            pass


async def test_aliases_and_prices_of_the_operator(kit: ModuleType) -> None:
    prices = {"mine": {"date": "2026-01-01", "text_in": "0.5"}}
    async with kit.governed(aliases={"deployed": "mine"}, prices=prices, model="deployed") as chain:
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=kit.usage(7)))
        await kit.settled(chain)
        assert kit.spent(chain) == [4]  # and 28 or more if it were nobody's


async def test_a_principal_has_limits_of_its_own(kit: ModuleType) -> None:
    principal = Principal(id="kiosk", limits={"budget_usd": "0.1", "max_output_tokens": "200"})
    async with kit.governed(principal=principal, goodbye_usd="0") as chain:
        assert chain.state(STAGE).caps.budget_usd == "0.1"
        assert chain.state(STAGE).caps.max_output_tokens == 200
    with pytest.raises(Exception, match="cannot be understood"):
        async with kit.governed(principal=Principal(id="k", limits={"buget_usd": "1"})):
            pass


async def test_a_turn_of_tools_is_one_cycle(kit: ModuleType) -> None:
    call = {"type": "function_call", "name": "f", "call_id": "c1"}
    async with kit.governed() as chain:
        for response_id, output in (("r1", [call]), ("r2", []), ("r3", [])):
            await chain.upstream.send(kit.created(response_id))
            await kit.settled(chain)
            await chain.upstream.send(kit.done(response_id, kit.usage(1), output=output))
        await kit.settled(chain)
        assert [f.cycle for f in chain.facts if type(f).__name__ == "Spent"] == ["r1", "r1", "r3"]


async def test_what_a_lost_upstream_never_billed_counts_in_full(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, caps={"day_budget_usd": "1"}) as chain:
        await chain.client.send(CREATE)
        await chain.upstream.send(kit.created())
        (reserved,) = store.open.values()
        await chain.replace_upstream()
        assert kit.spent(chain) == [reserved.amount]
        assert store.counters[reserved.keys[0]] == reserved.amount >= 4096 * 64
        assert store.open == {}


async def test_what_was_asked_for_when_the_session_ended_counts_in_full(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store) as chain:
        await chain.client.send(CREATE)
        governor, caps = chain.plugin(STAGE), chain.state(STAGE).money
    (reserved,) = store.open.values()
    assert store.counters[caps[1].key] == reserved.amount
    assert governor.books._open[caps[1].key] == 0
