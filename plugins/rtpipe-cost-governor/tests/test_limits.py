"""What ends a conversation, and how: told, said, played out, and only then closed."""

from types import ModuleType
from typing import Any

import pytest
import trio

from rtpipe import Principal
from rtpipe_cost_governor import room

STAGE = "cost-governor"


async def test_a_soft_landing(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}) as chain:
        for number in range(7):  # 0.448 USD
            await kit.answer(chain, f"a{number}", 1000)
        assert not [f for f in chain.facts if type(f).__name__ == "Alerted"]
        await kit.answer(chain, "r2", 1000)
        (alert,) = [f for f in chain.facts if type(f).__name__ == "Alerted"]
        assert (alert.name, alert.labels["budget"]) == ("budget", "conversation")
        assert "51%" in alert.message
        for number in range(4):  # 0.768
            await kit.answer(chain, f"b{number}", 1000)
        assert kit.of(chain.upstream.take(), "conversation.item.create") == []
        for number in range(2):  # 0.896
            await kit.answer(chain, f"c{number}", 1000)
        (item,) = kit.of(chain.upstream.take(), "conversation.item.create")
        assert item["item"]["role"] == "system"
        chain.client.take()

        await kit.answer(chain, "r4", 1000)  # 0.96: no other answer fits before the goodbye
        (goodbye,) = kit.of(chain.upstream.take(), "response.create")
        assert "goodbye" in goodbye["response"]["instructions"]
        assert goodbye["response"]["input"] == []
        await chain.client.send(kit.CREATE)
        (error,) = kit.of(chain.client.take(), "error")
        assert (error["error"]["code"], error["error"]["event_id"]) == ("cost_limit_reached", "c")

        metadata = goodbye["response"].get("metadata")
        begun = kit.created("r5")
        begun["response"]["metadata"] = metadata
        await chain.upstream.send(begun)
        second = {
            "type": "response.output_audio.delta",
            "event_id": "d",
            "response_id": "r5",
            "delta": "A" * 64000,
        }
        for _ in range(3):
            await chain.upstream.send(second)
        await chain.upstream.send(kit.done("r5", kit.usage(20, out=(0, 60))))
        before = trio.current_time()
        assert len(kit.of(chain.client.take(), "response.output_audio.delta")) == 3
        assert chain.client.closing is None
        await trio.sleep(2.9)
        assert chain.client.closing is None
        await trio.sleep(0.2)
        assert (chain.client.closing.code, chain.client.closing.reason) == (1000, "Cost limit reached")
        assert trio.current_time() < before + 4
        assert chain.client.take()[-1]["error"]["code"] == "cost_limit_reached"
        assert sum(kit.spent(chain)) <= 1_000_000


async def test_wrapping_up_and_goodbye_are_in_the_operators_words(kit: ModuleType) -> None:
    options = {
        "wrap_up_fraction": 0.1,
        "wrap_up_text": "Hurry.",
        "goodbye_text": "Say ciao.",
        "goodbye_usd": "0.1",
    }
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}, **options) as chain:
        await kit.answer(chain, "r1", 2000)
        (item,) = kit.of(chain.upstream.take(), "conversation.item.create")
        assert item["item"]["content"][0]["text"] == "Hurry."
        await kit.answer(chain, "r2", 11500)
        (goodbye,) = kit.of(chain.upstream.take(), "response.create")
        assert goodbye["response"]["instructions"] == "Say ciao."


async def test_without_a_reserve_nobody_says_goodbye(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}, goodbye_usd="0") as chain:
        await kit.answer(chain, "r1", 15600)
        await trio.sleep(1)
        assert kit.of(chain.upstream.take(), "response.create") == []
        assert chain.client.closing.code == 1000


async def test_responses_are_limited(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"max_responses": 1}, goodbye_usd="0") as chain:
        await kit.answer(chain, "r1", 1)
        await chain.client.send(kit.CREATE)
        await trio.sleep(1)
        assert chain.client.closing.reason == "Response limit reached"


async def test_images_are_limited(kit: ModuleType) -> None:
    image = {"type": "input_image", "image_url": "data:,"}
    event = {
        "type": "conversation.item.create",
        "event_id": "i",
        "item": {"type": "message", "content": [image]},
    }
    async with kit.governed(store=kit.Memory(), caps={"max_images": 1}) as chain:
        await chain.client.send(event)
        await chain.client.send(event)
        assert len(kit.of(chain.upstream.take(), "conversation.item.create")) == 1
        (error,) = kit.of(chain.client.take(), "error")
        assert error["error"]["code"] == "image_limit_reached"


async def test_time_is_limited(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"max_minutes": 1.0}, goodbye_usd="0") as chain:
        await trio.sleep(59)
        assert chain.client.closing is None
        await trio.sleep(3)
        assert (chain.client.closing.code, chain.client.closing.reason) == (1000, "Time limit reached")


@pytest.mark.parametrize("caps", [{"max_events_per_s": 2}, {"max_bytes_per_s": 100}])
async def test_what_a_session_sends_is_limited(kit: ModuleType, autojump_clock: Any, caps: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps=caps) as chain:
        for _ in range(18):
            await chain.client.send({"type": "input_audio_buffer.clear"})
        await trio.sleep(5)
        assert chain.client.closing is None
        for _ in range(10):
            await chain.client.send({"type": "input_audio_buffer.clear"})
        await trio.sleep(2)
        assert chain.client.closing.code == 1008
        assert chain.client.take()[-1]["error"]["code"] == "rate_limit_exceeded"


async def test_tokens_are_limited(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_tokens": 1000}, goodbye_usd="0") as chain:
        await chain.client.send(kit.CREATE)
        (create,) = kit.of(chain.upstream.take(), "response.create")
        assert create["response"]["max_output_tokens"] == 1000
        await kit.answer(chain, "r1", 950)
        await trio.sleep(1)
        assert chain.client.closing.reason == "Cost limit reached"


@pytest.mark.parametrize(
    "options",
    [
        {"caps": {"day_budget_usd": "0.1"}},
        {"caps": {"month_budget_usd": "0.1"}},
        {"caps": {"day_budget_tokens": 1562}},
        {"caps": {"month_budget_tokens": 1562}},
        {"everybody": {"day_usd": "0.1"}},
        {"everybody": {"month_usd": "0.1"}},
        {"everybody": {"day_tokens": 1562}},
        {"everybody": {"month_tokens": 1562}},
    ],
)
async def test_a_budget_that_sessions_share(kit: ModuleType, options: Any) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, goodbye_usd="0", **options) as first:
        await kit.answer(first, "r1", 1400)
    async with kit.governed(store=store, goodbye_usd="0", **options) as second:
        await second.client.send(kit.CREATE)
        (create,) = kit.of(second.upstream.take(), "response.create")
        assert create["response"]["max_output_tokens"] == 162
        await kit.answer(second, "r2", 162)
    with pytest.raises(Exception, match="used up"):
        async with kit.governed(store=store, goodbye_usd="0", **options):
            pass


async def test_sessions_of_one_caller_are_limited(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), caps={"max_sessions": 1}) as chain:
        governor, session = chain.plugin(STAGE), chain.session.view(STAGE)
        with pytest.raises(Exception, match="1 sessions already"):
            await governor.session_open(session)
        assert governor.by_principal == {"kiosk": 1}
    assert governor.by_principal == {}
    assert not governor.sharing


async def test_a_day_begins_in_the_operators_zone(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), zone="Asia/Tokyo") as chain:
        periods = chain.plugin(STAGE).periods
        before_midnight = 1_767_193_199.0  # 2025-12-31 23:59:59 in Tokyo
        assert periods.day(before_midnight) == "2025-12-31"
        assert periods.ends(before_midnight) == (before_midnight + 1, before_midnight + 1)
        assert periods.day(before_midnight + 1) == "2026-01-01"


async def test_a_day_budget_is_new_at_the_operators_midnight(kit: ModuleType) -> None:
    options = {"caps": {"day_budget_usd": "0.1"}, "goodbye_usd": "0", "zone": "Asia/Tokyo"}
    async with kit.governed(store=kit.Memory(), **options) as chain:
        governor, session = chain.plugin(STAGE), chain.session.view(STAGE)
        governor.books.now = lambda: 1_767_193_199.0  # a second before midnight in Tokyo
        await room.set_caps(governor, session)
        await kit.answer(chain, "r1", 500)
        assert governor.books.room(session.state.money) == 68_000
        governor.books.now = lambda: 1_767_193_201.0
        await room.refresh(governor, session)
        assert governor.books.room(session.state.money) == 100_000


async def test_entries_are_kept_for_the_days_that_the_operator_says(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, retention_days=2) as chain:
        await kit.answer(chain, "r1", 1)
    assert list(store.kept_s.values()) == [2 * 86_400]


async def test_a_budget_is_of_one_caller(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, caps={"day_budget_usd": "0.1"}, goodbye_usd="0") as first:
        await kit.answer(first, "r1", 1562)
    other = Principal(id="other")
    async with kit.governed(
        store=store, principal=other, caps={"day_budget_usd": "0.1"}, goodbye_usd="0"
    ) as chain:
        await chain.client.send(kit.CREATE)
        assert len(kit.of(chain.upstream.take(), "response.create")) == 1


async def test_other_sessions_reservations_make_a_create_wait_for_another_time(kit: ModuleType) -> None:
    store = kit.Memory()
    options = {"caps": {"day_budget_usd": "0.3"}, "goodbye_usd": "0"}
    async with kit.governed(store=store, **options) as first:
        await first.client.send(kit.CREATE)
        assert len(kit.of(first.upstream.take(), "response.create")) == 1
        async with kit.governed(store=store, **options) as second:
            second.client.take()
            await second.client.send(kit.CREATE)
            await second.client.send({**kit.CREATE, "event_id": "c2"})
            assert sum(
                store.counters[k] for k in store.counters if k.startswith("usd:2") and k.count(":") == 2
            )
            creates = kit.of(second.upstream.take(), "response.create")
            assert [create["response"]["max_output_tokens"] for create in creates] == [591]
            (error,) = kit.of(second.client.take(), "error")
            assert error["error"]["code"] == "budget_reserved"
            assert second.client.closing is None


async def test_a_create_that_nothing_is_left_for_is_refused_and_ends_the_conversation(
    kit: ModuleType, autojump_clock: Any
) -> None:
    content = [{"type": "input_text", "text": "x" * 120_000}]
    item = {"type": "message", "role": "user", "content": content}
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "0.1"}, goodbye_usd="0") as chain:
        await chain.client.send({"type": "conversation.item.create", "item": item})
        await chain.client.send(kit.CREATE)
        assert kit.of(chain.upstream.take(), "response.create") == []
        errors = kit.of(chain.client.take(), "error")
        assert (errors[0]["error"]["code"], errors[0]["error"]["event_id"]) == ("cost_limit_reached", "c")
        await trio.sleep(1)
        assert chain.client.closing.reason == "Cost limit reached"


async def test_usage_that_cannot_be_priced_may_end_the_conversation(
    kit: ModuleType, autojump_clock: Any
) -> None:
    async with kit.governed(store=kit.Memory(), unpriced="refuse", goodbye_usd="0") as chain:
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used={**kit.usage(3), "total_tokens": 9}))
        await trio.sleep(1)
        assert chain.client.closing.reason == "Usage cannot be priced"
        assert kit.spent(chain) == [12]
