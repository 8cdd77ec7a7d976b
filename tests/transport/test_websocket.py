import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_one_way_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from rtpipe.transport.connection import Closing, Connection, ConnectionLost, Peer
from rtpipe.transport.encoding import Side
from rtpipe.transport.websocket import WebSocketConnection

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size | masked << 7])
    elif size < 65536:
        length = bytes([126 | masked << 7]) + struct.pack("!H", size)
    else:
        length = bytes([127 | masked << 7]) + struct.pack("!Q", size)
    head = bytes([fin << 7 | rsv << 4 | opcode]) + length
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def close_frame(code: int, reason: bytes = b"", *, masked: bool = True) -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason, masked=masked)


def server(stream: trio.abc.Stream, **limits: int) -> WebSocketConnection:
    return WebSocketConnection(stream, Side.SERVER, Peer("test"), **limits)


def both_ends(
    make: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = memory_stream_pair,
) -> tuple[WebSocketConnection, WebSocketConnection]:
    left, right = make()
    return server(left), WebSocketConnection(right, Side.CLIENT, Peer("test"))


def socket_stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = trio.socket.socketpair()
    return trio.SocketStream(left), trio.SocketStream(right)


async def close_both(*connections: Connection) -> None:
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(connection.close, 1000, "")


async def lost(what: Awaitable[object]) -> Closing:
    with pytest.raises(ConnectionLost) as caught:
        await what
    return caught.value.closing


async def cancel(scope: trio.CancelScope) -> None:
    scope.cancel()


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def test_payloads_of_every_length_form_go_both_ways() -> None:
    ours, theirs = both_ends()
    for size in (0, 1, 125, 126, 65535, 65536, 15 * 2**20):
        payload = b"x" * size
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            await sender.send(payload)
            assert await receiver.receive() == payload


async def test_fragments_and_what_stands_between_them() -> None:
    left, right = memory_stream_pair()
    ours = server(left)
    text = "grün 😀".encode()
    await right.send_all(
        frame(TEXT, text[:3], fin=False) + frame(PING, b"between") + frame(0, b"", fin=False)
    )
    await right.send_all(frame(0, text[3:]))
    assert await ours.receive() == text
    assert await right.receive_some() == frame(PONG, b"between", masked=False)


async def test_a_frame_cut_anywhere_and_a_receive_cancelled_anywhere_lose_nothing(
    autojump_clock: MockClock,
) -> None:
    left, right = memory_stream_pair()
    ours = server(left)
    for byte in frame(TEXT, b"whole"):
        with trio.move_on_after(1) as scope:
            await ours.receive()
        assert scope.cancelled_caught
        await right.send_all(bytes([byte]))
    assert await ours.receive() == b"whole"


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 3000, 4000])
async def test_close_codes_and_reasons_go_both_ways(code: int) -> None:
    for closer, other in (both_ends(), both_ends()[::-1]):
        await closer.send(b"before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closer.close, code, "why, ä")
            assert await other.receive() == b"before"
            assert await lost(other.receive()) == Closing(code, "why, ä", clean=True)
        assert await lost(closer.receive()) == Closing(code, "why, ä", clean=True)
        assert (
            await lost(closer.send(b"")) == await lost(other.send(b"")) == Closing(code, "why, ä", clean=True)
        )
        await other.close(1000, "nothing more happens")


async def test_a_close_without_a_code_is_1005_and_answered_without_one() -> None:
    left, right = memory_stream_pair()
    await right.send_all(frame(CLOSE))
    assert await lost(server(left).receive()) == Closing(1005, "", clean=True)
    assert await everything(right) == frame(CLOSE, masked=False)


@pytest.mark.parametrize("code", [0, 1004, 1005, 1006, 1015, 5000])
async def test_codes_not_for_the_wire_are_refused(code: int) -> None:
    ours, _ = both_ends()
    with pytest.raises(ValueError):
        await ours.close(code, "")


async def test_a_stream_that_ends_is_1006() -> None:
    for ending in ("eof", "reset"):
        left, right = memory_stream_pair()
        ours = server(left)
        await right.send_all(frame(TEXT, b"last") + frame(TEXT, b"half")[:-2])
        if ending == "eof":
            await right.send_eof()
        else:
            await right.aclose()
        assert await ours.receive() == b"last"
        closing = await lost(ours.receive())
        assert closing.code == 1006
        assert not closing.clean
        await ours.close(1000, "")


async def test_a_sender_that_finds_the_peer_gone_learns_its_close_code(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    ours = server(left)
    await right.send_all(frame(TEXT, b"last") + close_frame(1008, b"policy"))
    await right.aclose()
    closings = []

    async def send() -> None:
        closings.append(await lost(ours.send(b"too late")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert await ours.receive() == b"last"
        closings.append(await lost(ours.receive()))
    assert closings == [Closing(1008, "policy", clean=True)] * 2


async def test_a_pong_that_cannot_leave_does_not_hide_the_close_code() -> None:
    left, right = memory_stream_pair()
    await right.send_all(frame(PING) + close_frame(1011))
    await right.aclose()
    assert (await lost(server(left).receive())).code == 1011


async def test_a_sender_without_a_receiver_reads_the_end_itself(autojump_clock: MockClock) -> None:
    for farewell, code in ((b"", 1006), (close_frame(1008), 1008)):
        left, right = memory_stream_pair()
        if farewell:
            await right.send_all(farewell)
        await right.aclose()
        begun = trio.current_time()
        assert (await lost(server(left).send(b"x"))).code == code
        assert trio.current_time() == begun


FAULTS = [
    pytest.param(frame(BINARY, b"x"), 1003, id="binary"),
    pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="not UTF-8"),
    pytest.param(frame(TEXT, b"\xc3", fin=True), 1007, id="half a character"),
    pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="surrogate"),
    pytest.param(frame(3), 1002, id="reserved opcode"),
    pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="reserved bit"),
    pytest.param(frame(TEXT, b"x", masked=False), 1002, id="no mask"),
    pytest.param(frame(PING, b"x", fin=False), 1002, id="fragmented ping"),
    pytest.param(frame(PING, b"x" * 126), 1002, id="long ping"),
    pytest.param(frame(0, b"x"), 1002, id="continues nothing"),
    pytest.param(close_frame(999), 1002, id="close code 999"),
    pytest.param(close_frame(1006), 1002, id="close code 1006"),
    pytest.param(frame(TEXT, b"x" * 101), 1009, id="too big"),
    pytest.param(frame(TEXT, "ä".encode() * 51), 1009, id="too big in bytes"),
    pytest.param(frame(TEXT, b"x" * 60, fin=False) + frame(0, b"x" * 60), 1009, id="too big in fragments"),
]


@pytest.mark.parametrize(("wire", "code"), FAULTS)
async def test_a_breach_is_told_by_a_close_frame(wire: bytes, code: int) -> None:
    left, right = memory_stream_pair()
    ours = server(left, max_message_bytes=100)
    answer = b""

    async def offend() -> None:
        nonlocal answer
        await right.send_all(frame(TEXT, b"good") + wire)
        answer = bytes(await right.receive_some())
        await right.send_all(b"junk that is still on its way" * 1000)
        await right.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(offend)
        assert await ours.receive() == b"good"
        closing = await lost(ours.receive())
    assert closing.code == code
    assert closing.reason
    assert answer == close_frame(code, closing.reason.encode(), masked=False)


async def test_after_a_breach_the_peer_is_not_kept_waiting(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    begun = trio.current_time()
    await right.send_all(frame(3))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lost, server(left).receive())
        assert (await everything(right))[2:4] == struct.pack("!H", 1002)
        await right.aclose()
    assert trio.current_time() == begun


async def test_a_breach_by_a_peer_that_never_goes_ends_in_3_s(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    start = trio.current_time()
    await right.send_all(frame(3))
    ours = server(left)
    assert (await lost(ours.receive())).code == 1002
    assert trio.current_time() == start
    await ours.close(1000, "waits for the end")
    assert trio.current_time() - start == pytest.approx(3)


async def test_payloads_of_two_senders_never_interleave() -> None:
    ours, theirs = both_ends(lockstep_stream_pair)

    async def send_many(letter: bytes) -> None:
        for _ in range(20):
            await ours.send(letter * 1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_many, b"a")
        nursery.start_soon(send_many, b"b")
        got = [await theirs.receive() for _ in range(40)]
    assert sorted(got) == [b"a" * 1000] * 20 + [b"b" * 1000] * 20


async def test_the_write_deadline_aborts_and_says_so(autojump_clock: MockClock) -> None:
    left, _ = lockstep_stream_pair()
    ours = server(left)
    endings = []

    async def expect_lost(what: Awaitable[object]) -> None:
        endings.append(await lost(what))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(expect_lost, ours.send(b"x"))
        nursery.start_soon(expect_lost, ours.receive())
    assert trio.current_time() - start == pytest.approx(10)
    assert endings == [Closing(1006, "nothing read within the write deadline of 10 s", clean=False)] * 4


async def test_a_send_cancelled_in_mid_frame_ends_the_stream_there(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    ours = server(left)
    wire = b""

    async def read_a_little() -> None:
        nonlocal wire
        wire += bytes(await right.receive_some(5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_a_little)
        with trio.move_on_after(1):
            await ours.send(b"0123456789")
    await ours.close(1000, "too late")
    wire += await everything(right)
    assert frame(TEXT, b"0123456789", masked=False).startswith(wire)
    assert (await lost(ours.receive())).reason == "a send was cancelled in mid frame"


async def test_a_send_cancelled_before_it_began_does_no_harm() -> None:
    ours, theirs = both_ends()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.send(b"never")
    await ours.send(b"after")
    assert await theirs.receive() == b"after"


async def test_a_send_cancelled_at_the_very_moment_it_begins_does_no_harm() -> None:
    for _ in range(20):  # trio shuffles which of the two runs first
        ours, theirs = both_ends(socket_stream_pair)
        scope = trio.CancelScope()

        async def send(connection: Connection, scope: trio.CancelScope) -> None:
            with scope:
                await connection.send(b"perhaps")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ours, scope)
            nursery.start_soon(cancel, scope)
        await ours.send(b"after")
        assert await theirs.receive() in (b"perhaps", b"after")
        await close_both(ours, theirs)


async def test_close_wakes_receiver_and_queued_sender(autojump_clock: MockClock) -> None:
    left, _ = lockstep_stream_pair()
    ours = server(left)
    codes = []

    async def expect_lost(what: Awaitable[object]) -> None:
        codes.append((await lost(what)).code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_lost, ours.receive())
        nursery.start_soon(expect_lost, ours.send(b"stuck"))
        nursery.start_soon(expect_lost, ours.send(b"queued"))
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await ours.close(1012, "restart")
        assert trio.current_time() - start == pytest.approx(3)
    assert codes == [1012] * 3


async def test_close_takes_the_stream_over_from_a_waiting_receiver() -> None:
    left, right = memory_stream_pair()
    ours = server(left)
    receiver_left = trio.Event()

    async def receive() -> None:
        assert await lost(ours.receive()) == Closing(4000, "bye", clean=True)
        receiver_left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        nursery.start_soon(ours.close, 4000, "bye")
        await wait_all_tasks_blocked()
        assert receiver_left.is_set()
        nursery.start_soon(ours.close, 1000, "twice")
        await wait_all_tasks_blocked()
        await right.send_all(frame(TEXT, b"crossed") + close_frame(4000))
    assert await everything(right) == close_frame(4000, b"bye", masked=False)


async def test_close_is_bounded_when_the_peer_never_answers(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    start = trio.current_time()
    await server(left).close(1000, "")
    assert trio.current_time() - start == pytest.approx(3)
    assert await everything(right) == close_frame(1000, masked=False)


async def test_close_finishes_under_cancellation() -> None:
    ours, theirs = both_ends()

    async def cancelled_close() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.close(1001, "going")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled_close)
        assert await lost(theirs.receive()) == Closing(1001, "going", clean=True)


async def test_a_second_close_returns_when_the_first_is_done(autojump_clock: MockClock) -> None:
    left, _ = lockstep_stream_pair()
    ours = server(left)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.close, 1000, "")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.close(1000, "")
        assert trio.current_time() - begun == pytest.approx(3)


async def test_both_sides_close_at_once() -> None:
    ours, theirs = both_ends()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.close, 4001, "")
        nursery.start_soon(theirs.close, 4002, "")


async def test_a_payload_that_is_not_utf8_never_leaves() -> None:
    left, right = memory_stream_pair()
    ours = server(left)
    with pytest.raises(UnicodeDecodeError):
        await ours.send(b"\xff")
    await ours.send(b"ok")
    assert await right.receive_some() == frame(TEXT, b"ok", masked=False)


async def test_over_a_stream_that_cannot_be_half_closed(autojump_clock: MockClock) -> None:
    to_us, from_us = memory_stream_one_way_pair(), memory_stream_one_way_pair()

    class LikeTls(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await from_us[0].send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await from_us[0].wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await to_us[1].receive_some(max_bytes)

        async def aclose(self) -> None:
            await from_us[0].aclose()
            await to_us[1].aclose()

    ours: Connection = server(LikeTls())
    await to_us[0].send_all(frame(TEXT, b"\xff"))
    assert (await lost(ours.receive())).code == 1007
    assert (await everything(from_us[1]))[2:4] == struct.pack("!H", 1007)


FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, BINARY, 0, CLOSE, PING, PONG, 5]),
    st.binary(max_size=20) | st.text(max_size=10).map(str.encode) | st.just(b"\x03\xe8bye"),
    fin=st.booleans(),
    masked=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 1]),
)


async def receive_all(connection: Connection) -> None:
    while True:
        (await connection.receive()).decode()


@settings(deadline=None)
@given(st.lists(FRAMES | st.binary(max_size=8), max_size=12), st.integers(1, 40))
def test_whatever_comes_ends_in_connection_lost(pieces: list[bytes], size: int) -> None:
    async def main() -> None:
        left, right = memory_stream_pair()
        ours = server(left, max_message_bytes=30)
        wire = b"".join(pieces)
        for start in range(0, len(wire), size):
            await right.send_all(wire[start : start + size])
        await right.send_eof()
        await lost(receive_all(ours))
        await ours.close(1000, "")
        await lost(ours.send(b"x"))

    trio.run(main, clock=MockClock(autojump_threshold=0))
