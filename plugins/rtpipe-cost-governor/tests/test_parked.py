"""A client that is away and may come back: its answer goes on, is billed once, and its caps hold."""

from types import ModuleType
from typing import Any

import trio

STAGE = "cost-governor"
CREATE = {"type": "response.create", "event_id": "c"}


async def park(chain: Any) -> None:
    chain.session.parking.allow()
    chain.client.connection.abort()
    await chain.settle()
    assert chain.session.client.connection is None


def kinds(chain: Any) -> list[str]:
    return [event["type"] for event in chain.upstream.take()]


async def test_what_runs_is_neither_cancelled_nor_given_up_and_billed_once(
    kit: ModuleType, autojump_clock: Any
) -> None:
    store = kit.Memory()
    async with kit.governed(store=store, caps={"day_budget_usd": "10"}) as chain:
        await chain.client.send(CREATE)
        await chain.upstream.send(kit.created())
        (reserved,) = store.open.values()
        await park(chain)
        kinds(chain)
        await trio.sleep(50)
        assert (kinds(chain), list(store.open.values()), kit.spent(chain)) == ([], [reserved], [])
        await chain.upstream.send(kit.done(used=kit.usage(100, out=(0, 50))))
        await chain.settle()
        assert kit.spent(chain) == [100 * 4 + 50 * 64]
        assert (store.open, store.counters[reserved.keys[1]]) == ({}, sum(kit.spent(chain)))
        assert chain.session.ending is None


async def test_a_client_that_is_back_is_in_the_same_conversation(
    kit: ModuleType, autojump_clock: Any
) -> None:
    async with kit.governed(store=kit.Memory(), caps={"max_sessions": 1, "max_responses": 3}) as chain:
        await chain.upstream.send(kit.created())
        await park(chain)
        await chain.upstream.send(kit.done(used=kit.usage(1)))
        await chain.replace_client()
        assert chain.state(STAGE).responses == 1
        assert chain.plugin(STAGE).by_principal == {"kiosk": 1}
        kinds(chain)
        await chain.client.send(CREATE)
        assert kinds(chain) == ["response.create"]


async def test_a_cap_ends_it_though_nobody_is_there(kit: ModuleType, autojump_clock: Any) -> None:
    async with kit.governed(store=kit.Memory(), caps={"budget_usd": "1"}, goodbye_usd="0") as chain:
        await chain.upstream.send(kit.created())
        await park(chain)
        began_s = trio.current_time()
        await chain.upstream.send(kit.done(used=kit.usage(out=(0, 15_600))))
        await chain.session.ended.wait()
        assert trio.current_time() - began_s < 30
        assert sum(kit.spent(chain)) == 15_600 * 64
