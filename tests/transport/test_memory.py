import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rtpipe.transport.connection import Closing, Connection, ConnectionLost, wire_reason
from rtpipe.transport.memory import memory_pair


async def lost(connection: Connection) -> Closing:
    with pytest.raises(ConnectionLost) as caught:
        await connection.receive()
    return caught.value.closing


def test_codes_that_may_not_go_on_the_wire_are_refused() -> None:
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000):
        with pytest.raises(ValueError):
            wire_reason(code, "")
    for code in (1000, 1001, 1008, 1011, 1012, 1014, 3000, 4000, 4999):
        assert wire_reason(code, "why") == "why"


def test_a_reason_is_cut_at_a_character() -> None:
    assert wire_reason(1000, "x" * 200) == "x" * 123
    assert wire_reason(1000, "ä" * 100) == "ä" * 61
    assert wire_reason(1000, "x" + "😀" * 40) == "x" + "😀" * 30


async def test_payloads_go_both_ways_in_order() -> None:
    left, right = memory_pair()
    for n in range(10):
        await left.send(b"%d" % n)
    await right.send(b"back")
    assert [await right.receive() for _ in range(10)] == [b"%d" % n for n in range(10)]
    assert await left.receive() == b"back"


async def test_a_close_comes_after_what_was_sent_and_the_first_one_counts() -> None:
    left, right = memory_pair()
    await left.send(b"last")
    await left.close(4000, "moved")
    await right.close(1000, "late")
    await left.close(1011, "later")
    assert await lost(left) == Closing(4000, "moved", clean=True)
    assert await lost(right) == Closing(4000, "moved", clean=True)
    with pytest.raises(ConnectionLost):
        await right.send(b"x")


async def test_the_peer_receives_what_came_before_the_close() -> None:
    left, right = memory_pair()
    await left.send(b"last")
    await left.close(1000, "")
    with pytest.raises(ConnectionLost):
        await right.send(b"x")
    assert await right.receive() == b"last"
    assert await lost(right) == Closing(1000, "", clean=True)


async def test_close_wakes_whoever_receives_or_sends_on_either_end() -> None:
    left, right = memory_pair(limit=0)

    async def expect_lost(what: object) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await what  # type: ignore[misc]
        assert caught.value.closing.code == 1012

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_lost, left.receive())
        nursery.start_soon(expect_lost, left.send(b"x"))
        await wait_all_tasks_blocked()
        await left.close(1012, "restart")
        await expect_lost(right.send(b"x"))


async def test_abort_is_1006_on_both_ends() -> None:
    left, right = memory_pair()
    left.abort()
    assert (await lost(left)).code == (await lost(right)).code == 1006
    assert not (await lost(right)).clean


async def test_a_reader_that_stopped_is_cut_off_at_the_write_deadline(autojump_clock: MockClock) -> None:
    left, right = memory_pair(limit=2)
    await left.send(b"1")
    await left.send(b"2")
    start = trio.current_time()
    with pytest.raises(ConnectionLost) as caught:
        await left.send(b"3")
    assert trio.current_time() - start == pytest.approx(10)
    assert "write deadline of 10 s" in caught.value.closing.reason
    assert await right.receive() == b"1"
    assert await right.receive() == b"2"
    assert (await lost(right)).code == 1006


async def test_a_cancelled_send_breaks_the_connection_only_in_mid_frame(autojump_clock: MockClock) -> None:
    left, right = memory_pair(limit=1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await left.send(b"never begun")
    await left.send(b"1")
    with trio.move_on_after(1):
        await left.send(b"half")
    await left.close(1000, "")
    assert await right.receive() == b"1"
    assert (await lost(right)).code == 1006


async def test_close_says_its_code_under_cancellation() -> None:
    left, right = memory_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await left.close(1001, "going")
    assert await lost(right) == Closing(1001, "going", clean=True)
