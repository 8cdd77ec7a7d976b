"""Whose answer a response is: what was reserved for one create never pays for another."""

import itertools
from types import ModuleType
from typing import Any

import pytest

STAGE = "cost-governor"
STAMP = "rtpipe_cost_governor"


def ask(number: int, **more: Any) -> dict[str, Any]:
    """A create out of band, no two of which may say as much."""
    response = {"conversation": "none", "max_output_tokens": 1000 + number, **more}
    return {"type": "response.create", "event_id": f"c{number}", "response": response}


def begun(
    kit: ModuleType, response_id: str, metadata: Any, conversation_id: str | None = None
) -> dict[str, Any]:
    event = kit.created(response_id)
    event["response"] |= {"metadata": metadata, "conversation_id": conversation_id}
    return event


def over(kit: ModuleType, response_id: str, metadata: Any, conversation_id: str | None, used: Any) -> Any:
    event = kit.done(response_id, used)
    event["response"] |= {"metadata": metadata, "conversation_id": conversation_id}
    return event


async def creates(chain: Any) -> list[Any]:
    await chain.settle()
    return [event for event in chain.upstream.take() if event["type"] == "response.create"]


def of_the_day(chain: Any, store: Any) -> int:
    return int(store.counters[chain.state(STAGE).money[1].key])


@pytest.mark.parametrize("beginning", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("ending", list(itertools.permutations(range(3))))
async def test_responses_may_begin_and_end_in_any_order(
    kit: ModuleType, beginning: tuple[int, ...], ending: tuple[int, ...]
) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, caps={"day_budget_usd": "100"}) as chain:
        await creates(chain)
        for number in range(3):
            await chain.client.send(ask(number))
        marks = [create["response"]["metadata"] for create in await creates(chain)]
        amounts = [each.amount for each in store.open.values()]
        ids = list(store.open)
        assert amounts == sorted(set(amounts))
        # One that voice activity began, before any of them.
        await chain.upstream.send(begun(kit, "voice", None, "conv"))
        for number in beginning:
            await chain.upstream.send(begun(kit, f"r{number}", marks[number]))
        await chain.settle()
        (voice,) = set(store.open) - set(ids)
        left = sum(each.amount for each in store.open.values())
        for number in ending:
            used = kit.usage(out=(0, 10 + number))
            await chain.upstream.send(over(kit, f"r{number}", marks[number], None, used))
            await chain.settle()
            left += (10 + number) * 64 - amounts[number]
            assert ids[number] not in store.open
            assert of_the_day(chain, store) == left
        assert list(store.open) == [voice]
        await chain.upstream.send(over(kit, "voice", None, "conv", kit.usage(out=(0, 5))))
        await chain.settle()
        assert (store.open, of_the_day(chain, store)) == ({}, sum(kit.spent(chain)))
        assert of_the_day(chain, store) == (10 + 11 + 12 + 5) * 64


async def test_nobody_else_sees_the_stamp_and_the_clients_metadata_stay(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory()) as chain:
        for given in ({}, {"mine": "1"}, {f"k{number}": "v" for number in range(16)}):
            await creates(chain)
            chain.client.take()
            await chain.client.send(ask(1, metadata=given))
            (create,) = await creates(chain)
            metadata = create["response"]["metadata"]
            assert len(metadata) <= 16
            assert metadata == given | ({STAMP: metadata[STAMP]} if len(given) < 16 else {})
            await chain.upstream.send(begun(kit, "r", metadata))
            await chain.upstream.send(over(kit, "r", metadata, None, kit.usage(1)))
            seen = [event["response"]["metadata"] for event in chain.client.take() if "response" in event]
            assert seen == [given or None] * 2
            await chain.settle()
            assert chain.state(STAGE).is_quiet


async def test_an_upstream_that_repeats_no_metadata_answers_in_order(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store) as chain:
        for number in range(3):
            await chain.client.send(ask(0, conversation="auto") if number == 1 else ask(number))
        first, inside, second = store.open
        for response_id, conversation_id, reserved in (
            ("b", "conv", inside), ("a", None, first), ("c", None, second)
        ):  # fmt: skip
            await chain.upstream.send(begun(kit, response_id, None, conversation_id))
            await chain.upstream.send(over(kit, response_id, None, conversation_id, kit.usage(1)))
            await chain.settle()
            assert reserved not in store.open
        assert store.open == {}


async def test_what_is_read_out_of_band_says_nothing_about_the_conversation(kit: ModuleType) -> None:
    call = {"type": "function_call", "name": "f", "call_id": "c1"}
    async with kit.governed(store=kit.Memory()) as chain:
        await chain.upstream.send(begun(kit, "r1", None, "conv"))
        event = over(kit, "r1", None, "conv", kit.usage(5000, out=(0, 50)))
        event["response"]["output"] = [call]
        await chain.upstream.send(event)
        await chain.client.send(ask(1))
        (create,) = await creates(chain)
        metadata = create["response"]["metadata"]
        await chain.upstream.send(begun(kit, "aside", metadata))
        await chain.upstream.send(over(kit, "aside", metadata, None, kit.usage(10)))
        assert chain.state(STAGE).context.text == 5000
        await chain.upstream.send(begun(kit, "r2", None, "conv"))
        await chain.settle()
        await chain.upstream.send(over(kit, "r2", None, "conv", kit.usage(5100)))
        await chain.settle()
        assert [f.cycle for f in chain.facts if type(f).__name__ == "Spent"] == ["r1", "aside", "r1"]
