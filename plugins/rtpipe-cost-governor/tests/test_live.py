"""What an operator changes while conversations go on: caps, prices, the kill switch."""

from types import ModuleType
from typing import Any

import pytest
import trio

from rtpipe import Principal, Refused

STAGE = "cost-governor"


async def asked(kit: ModuleType, chain: Any) -> list[Any]:
    """What a create of the client's becomes on its way up."""
    chain.upstream.take()
    await chain.client.send(kit.CREATE)
    return kit.of(chain.upstream.take(), "response.create")


async def change(chain: Any, **options: Any) -> None:
    await chain.change_config(STAGE, options)


async def test_a_raised_cap_lets_a_conversation_go_on_that_was_being_ended(
    kit: ModuleType, autojump_clock: Any
) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "0.2"}) as chain:
        await chain.upstream.send(kit.created("runs"))
        await kit.answer(chain, "r1", 3000)  # of two that began by themselves; now nothing is left
        (told,) = kit.of(chain.upstream.take(), "conversation.item.create")
        assert chain.state(STAGE).landing == "Cost limit reached"
        assert chain.state(STAGE).gated
        assert await asked(kit, chain) == []
        await trio.sleep(9)  # it waits for the other one to end
        await change(chain, caps={"budget_usd": "2"})
        (taken_back,) = kit.of(chain.upstream.take(), "conversation.item.delete")
        assert taken_back["item_id"] == told["item"]["id"]
        assert not chain.state(STAGE).gated
        assert len(await asked(kit, chain)) == 1
        await trio.sleep(60)
        assert chain.client.closing is None
        assert chain.plugin(STAGE).live
        # What was spent before counts: the next end comes where it should.
        await kit.answer(chain, "runs", 12_000)
        assert chain.state(STAGE).landing == ""
        await kit.answer(chain, "r3", 12_000)
        assert chain.state(STAGE).landing == "Cost limit reached"


async def test_a_goodbye_that_has_begun_is_the_end(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}) as chain:
        await kit.answer(chain, "r1", 15_000)
        (goodbye,) = kit.of(chain.upstream.take(), "response.create")
        assert "goodbye" in goodbye["response"]["instructions"]
        await change(chain, caps={"budget_usd": "5"})
        assert await asked(kit, chain) == []
        await trio.sleep(60)
        assert chain.client.closing.reason == "Cost limit reached"


async def test_without_a_goodbye_it_can_be_stopped_until_the_end(
    kit: ModuleType, autojump_clock: Any
) -> None:
    options = {"goodbye_usd": "0"}
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}, **options) as chain:
        await chain.upstream.send(kit.created("r1"))
        delta = {"type": "response.output_audio.delta", "event_id": "d", "response_id": "r1"}
        await chain.upstream.send({**delta, "delta": "A" * 640_000})  # ten seconds to be heard
        await chain.upstream.send(kit.done("r1", kit.usage(out=(0, 15_600))))
        await trio.sleep(5)
        assert chain.state(STAGE).landing
        await change(chain, caps={"budget_usd": "5"}, **options)
        assert len(await asked(kit, chain)) == 1
        await trio.sleep(20)
        assert chain.client.closing is None


async def test_a_lowered_cap_ends_what_is_over_it(kit: ModuleType, autojump_clock: Any) -> None:
    options = {"goodbye_usd": "0"}
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "5"}, **options) as chain:
        await kit.answer(chain, "r1", 3000)
        assert not chain.state(STAGE).gated
        await change(chain, caps={"budget_usd": "0.5"}, **options)
        assert chain.state(STAGE).gated
        assert chain.state(STAGE).landing == ""
        (create,) = await asked(kit, chain)
        assert create["response"]["max_output_tokens"] < 4096
        await change(chain, caps={"budget_usd": "0.1"}, **options)
        await trio.sleep(30)
        assert (chain.client.closing.code, chain.client.closing.reason) == (1000, "Cost limit reached")


async def test_shared_budgets_are_raised_too(kit: ModuleType) -> None:
    for caps, name in (
        ("caps", "day_budget_usd"),
        ("caps", "month_budget_usd"),
        ("everybody", "day_usd"),
        ("everybody", "month_usd"),
    ):
        store = kit.Memory()
        async with kit.governed(store=store, goodbye_usd="0", **{caps: {name: "0.1"}}) as chain:
            await kit.answer(chain, "r1", 500)
            assert chain.state(STAGE).gated, name
            before = dict(store.counters)
            await change(chain, goodbye_usd="0", **{caps: {name: "1"}})
            assert not chain.state(STAGE).gated, name
            (create,) = await asked(kit, chain)
            assert create["response"]["max_output_tokens"] == 4096
            assert chain.plugin(STAGE).books.total(chain.state(STAGE).money[1]) > 32_000
            assert {key: store.counters[key] for key in before} != before  # the same counters go on
            assert store.counters.keys() == before.keys()


async def test_a_budget_that_is_new_knows_what_was_spent_before(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), goodbye_usd="0") as chain:
        await kit.answer(chain, "r1", 1000)
        await change(chain, goodbye_usd="0", caps={"day_budget_usd": "0.2"})
        assert chain.plugin(STAGE).books.room(chain.state(STAGE).money) == 200_000 - 64_000


async def test_time_and_answers_may_be_given_more(kit: ModuleType, autojump_clock: Any) -> None:
    caps = {"max_minutes": 1.0, "max_responses": 1}
    async with kit.governed(store=kit.Memory(), caps=caps) as chain:
        await chain.upstream.send(kit.created("runs"))
        await trio.sleep(61)
        assert chain.state(STAGE).landing == "Time limit reached"
        await change(chain, caps={**caps, "max_minutes": 2.0})
        assert chain.state(STAGE).landing == ""
        assert await asked(kit, chain) == []
        assert chain.state(STAGE).landing == "Response limit reached"
        await change(chain, caps={"max_minutes": 2.0, "max_responses": 2})
        assert chain.state(STAGE).landing == ""
        assert len(await asked(kit, chain)) == 1
        await trio.sleep(62)
        assert chain.state(STAGE).landing == "Time limit reached"


async def test_a_limit_of_the_clock_may_come_later(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory()) as chain:
        await trio.sleep(100)
        await change(chain, caps={"max_minutes": 2.0}, goodbye_usd="0")
        await trio.sleep(19)
        assert chain.client.closing is None
        await trio.sleep(3)
        assert chain.client.closing.reason == "Time limit reached"


async def test_answers_are_of_the_new_length(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory()) as chain:
        chain.upstream.take()
        await change(chain, caps={"max_output_tokens": 200})
        (update,) = kit.of(chain.upstream.take(), "session.update")
        assert update["session"]["max_output_tokens"] == 200
        (create,) = await asked(kit, chain)
        assert create["response"]["max_output_tokens"] == 200


async def test_a_principals_limits_change(kit: ModuleType, autojump_clock: Any) -> None:
    rich = Principal(id="kiosk", limits={"budget_usd": "0.2"})
    async with kit.governed(store=kit.Memory(), principal=rich, goodbye_usd="0") as chain:
        await chain.upstream.send(kit.created("runs"))
        await kit.answer(chain, "r1", 3000)
        assert chain.state(STAGE).landing
        await chain.change_limits({"budget_usd": "2"})
        assert chain.state(STAGE).landing == ""
        assert len(await asked(kit, chain)) == 1
        # What comes first for the principal is not touched by the options of all.
        await change(chain, caps={"budget_usd": "0.1"}, goodbye_usd="0")
        assert chain.state(STAGE).landing == ""
        await chain.change_limits({})
        await trio.sleep(30)
        assert chain.client.closing.reason == "Cost limit reached"


async def test_limits_that_cannot_be_understood_change_nothing(kit: ModuleType, caplog: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}) as chain:
        await chain.change_limits({"budget_usd": "plenty"})
        assert chain.state(STAGE).money[0].limit == 1_000_000
        assert "keeps those it has" in caplog.text
        assert chain.client.closing is None


async def test_what_a_conversation_was_given_alone_stays(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}) as chain:
        chain.state(STAGE).own_caps = {"budget_usd": "7"}
        await change(chain, caps={"budget_usd": "2", "day_budget_usd": "9"})
        assert [cap.limit for cap in chain.state(STAGE).money[:2]] == [7_000_000, 9_000_000]


async def test_prices_and_days_change(kit: ModuleType) -> None:
    dear = {"date": "2026-11-22", "text_in": "0", "audio_in": "0", "audio_out": "640", "text_out": "0"}
    async with kit.governed(store=kit.Memory(), caps={"day_budget_usd": "5"}) as chain:
        await kit.answer(chain, "r1", 100)
        chain.plugin(STAGE).books.now = lambda: 1_767_193_199.0  # another day in Tokyo than in New York
        await change(
            chain, prices={"gpt-realtime-2.1": dear}, zone="Asia/Tokyo", caps={"day_budget_usd": "5"}
        )
        assert ":2025-12-31:" in chain.state(STAGE).money[1].key
        await change(
            chain, prices={"gpt-realtime-2.1": dear}, zone="America/New_York", caps={"day_budget_usd": "5"}
        )
        assert ":2025-12-31:" in chain.state(STAGE).money[1].key
        await kit.answer(chain, "r2", 100)
        assert kit.spent(chain) == [6_400, 64_000]
        governor = chain.plugin(STAGE)
        assert set(governor.sharing.values()) == {1}
    assert not governor.sharing


async def test_an_alarm_is_raised_again_for_another_budget(kit: ModuleType) -> None:
    def alerts(chain: Any) -> list[str]:
        return [fact.message for fact in chain.facts if type(fact).__name__ == "Alerted"]

    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}) as chain:
        await kit.answer(chain, "r1", 8000)
        assert len(alerts(chain)) == 1
        await change(chain, caps={"budget_usd": "2"})
        assert len(alerts(chain)) == 1
        await kit.answer(chain, "r2", 8000)
        assert len(alerts(chain)) == 2


async def test_the_kill_switch_ends_everything_at_once(kit: ModuleType, caplog: Any) -> None:
    async with kit.governed(store=kit.Memory()) as chain:
        assert len(await asked(kit, chain)) == 1
        begun = kit.created()
        await chain.upstream.send(begun)
        chain.client.take()
        await change(chain, kill_switch=True)
        assert chain.client.take()[-1]["error"]["code"] == "spending_stopped"
        assert (chain.client.closing.code, chain.client.closing.reason) == (1013, "Spending stopped")
        assert "response.cancel" in chain.upstream.take_types()
        # What was said until then is billed.
        await chain.upstream.send(kit.done("r1", kit.usage(out=(0, 10)), status="cancelled"))
        assert kit.spent(chain) == [640]
        assert "the kill switch is on: 1 sessions end" in caplog.text


async def test_nobody_comes_in_while_it_is_on(kit: ModuleType) -> None:
    with pytest.raises(Refused) as refused:
        async with kit.governed(store=kit.Memory(), kill_switch=True):
            pass
    assert (refused.value.status, refused.value.code) == (503, "spending_stopped")
