"""Another upstream in the midst of it: every answer is counted, and none twice."""

from types import ModuleType
from typing import Any

import pytest

STAGE = "cost-governor"
CREATE = {"type": "response.create", "event_id": "c"}


def begun(create: dict[str, Any], response_id: str = "r1") -> dict[str, Any]:
    """The answer to a create, by an upstream that repeats its metadata."""
    response = {"id": response_id, "metadata": create["response"]["metadata"]}
    return {"type": "response.created", "event_id": f"e_{response_id}", "response": response}


async def test_what_is_asked_again_of_another_upstream_is_reserved_once(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, caps={"day_budget_usd": "10"}) as chain:
        await chain.client.send(CREATE)
        (first,) = [event for event in chain.upstream.take() if event["type"] == "response.create"]
        (reserved,) = store.open.values()
        await chain.replace_upstream()
        (again,) = [event for event in chain.upstream.take() if event["type"] == "response.create"]
        assert again == first
        await chain.upstream.send(begun(again))
        await chain.settle()
        assert list(store.open.values()) == [reserved]
        await chain.upstream.send(kit.done(used=kit.usage(100, out=(0, 50))))
        await chain.settle()
        assert (store.open, store.counters[reserved.keys[1]]) == ({}, 100 * 4 + 50 * 64)
        assert kit.spent(chain) == [100 * 4 + 50 * 64]


async def test_an_answer_that_was_cut_and_one_that_was_not_begun(kit: ModuleType) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, caps={"day_budget_usd": "10"}) as chain:
        apart = {"conversation": "none", "output_modalities": ["text"]}
        await chain.client.send({**CREATE, "event_id": "apart", "response": apart})
        await chain.client.send(CREATE)
        creates = [event for event in chain.upstream.take() if event["type"] == "response.create"]
        await chain.upstream.send(begun(creates[1]))
        running, waiting = reversed(store.open.values())
        await chain.replace_upstream()
        await chain.settle()
        assert kit.spent(chain) == [running.amount]
        assert list(store.open.values()) == [waiting]
        await chain.upstream.send(begun(creates[0], "r2"))
        await chain.upstream.send(kit.done("r2", used=kit.usage(10)))
        await chain.settle()
        assert (store.open, store.counters[running.keys[1]]) == ({}, running.amount + 10 * 4)


@pytest.mark.parametrize("unpriced", ["estimate", "allow", "refuse"])
async def test_a_cut_is_no_fault_of_the_prices(
    kit: ModuleType, caplog: pytest.LogCaptureFixture, unpriced: str
) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, unpriced=unpriced) as chain:
        await chain.client.send(CREATE)
        await chain.upstream.send(kit.created())
        (reserved,) = store.open.values()
        await chain.replace_upstream()
        assert kit.spent(chain) == [reserved.amount]
        assert (chain.session.ending, chain.state(STAGE).landing) == (None, "")
    assert not [record for record in caplog.records if "usage of" in record.getMessage()]
