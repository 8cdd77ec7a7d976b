"""Who presents wrong keys waits; others do not."""

from typing import Any

import pytest
import trio

from rtpipe import Refused
from rtpipe_auth import guessing
from rtpipe_auth.guessing import Guessing


async def waited(table: Guessing, address: str) -> float:
    began = trio.current_time()
    await table.wait(address)
    return trio.current_time() - began


async def test_the_wait_grows_for_that_address_alone(autojump_clock: Any) -> None:
    table = Guessing()
    waits = []
    for _ in range(10):
        waits.append(await waited(table, "192.0.2.1"))
        table.failed("192.0.2.1")
        assert await waited(table, "192.0.2.2") == 0
    assert waits == pytest.approx([0, 0, 0, 0.25, 0.5, 1, 2, 4, 4, 4])


async def test_it_is_forgotten_after_a_quiet_minute(autojump_clock: Any) -> None:
    table = Guessing()
    for _ in range(10):
        table.failed("192.0.2.1")
    await trio.sleep(59)
    assert await waited(table, "192.0.2.1") == 4
    assert await waited(table, "192.0.2.1") == 0
    table.failed("192.0.2.1")
    assert await waited(table, "192.0.2.1") == 0


async def test_few_may_wait_at_a_time(autojump_clock: Any) -> None:
    table = Guessing()
    for _ in range(10):
        table.failed("192.0.2.1")
    async with trio.open_nursery() as nursery:
        for _ in range(guessing.WAITING):
            nursery.start_soon(table.wait, "192.0.2.1")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Refused) as caught:
            await table.wait("192.0.2.1")
        assert (caught.value.status, caught.value.code) == (429, "too_many_failures")
        assert caught.value.headers == {"Retry-After": "5"}
    assert await waited(table, "192.0.2.1") == 4


async def test_addresses_of_one_network_are_one(autojump_clock: Any) -> None:
    table = Guessing()
    for n in range(10):
        table.failed(f"2001:db8:1:2::{n}")
    assert await waited(table, "2001:db8:1:2:ffff::") == 4
    assert await waited(table, "2001:db8:1:3::1") == 0
    for _ in range(10):
        table.failed("::ffff:192.0.2.9")
    assert await waited(table, "192.0.2.9") == 4
    assert await waited(table, "192.0.2.8") == 0
    for _ in range(10):
        table.failed("uid 7")
    assert await waited(table, "uid 7") == 4
    assert await waited(table, "fe80::1%eth0") == 0


async def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "ADDRESSES", 100)
    table = Guessing()
    for n in range(1000):
        table.failed(f"192.0.{n // 250}.{n % 250}")
    assert len(table) == 100


async def test_who_waits_is_told_what_was_wrong_within_the_time_there_is(autojump_clock: Any) -> None:
    """Not that the gateway took too long, which would read like a fault of the upstream's."""
    table = Guessing()
    for _ in range(10):
        table.failed("192.0.2.1")
    with trio.fail_after(2):
        assert await waited(table, "192.0.2.1") == 1
