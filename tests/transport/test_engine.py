"""What a WebSocket connection does of itself: keepalive, reading ahead, writing in turn; and its bounds."""

import socket
import struct
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from rtpipe.transport.connection import Closing, ConnectionLost, Peer
from rtpipe.transport.encoding import WRITE_BYTES, Side, encode
from rtpipe.transport.frames import PINGS_OWED, FrameReader
from rtpipe.transport.websocket import READ_AHEAD_BYTES, WebSocketConnection
from rtpipe.transport.wire import READ_BYTES

PING, PONG = b"\x89\x00", b"\x8a\x00"
MIB = 2**20


def client(stream: trio.abc.Stream, **options: float) -> WebSocketConnection:
    """Ours is the client here, so that the other end's frames need no mask."""
    return WebSocketConnection(stream, Side.CLIENT, Peer("test"), **options)  # type: ignore[arg-type]


def frames(*payloads: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in encode(payloads, Side.SERVER))


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    left, right = trio.socket.socketpair()
    return trio.SocketStream(left), trio.SocketStream(right)


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        left = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        return left, await listener.accept()


async def lost(what: Awaitable[object]) -> Closing:
    with pytest.raises(ConnectionLost) as caught:
        await what
    return caught.value.closing


class Peering:
    """The other end by hand: reads what comes, answers pings if it likes."""

    def __init__(self, stream: trio.abc.Stream, *, pongs: bool = True) -> None:
        self.stream = stream
        self.pongs = pongs
        self.pings = 0
        self.reader = FrameReader(Side.SERVER, 32 * MIB)
        self.got: list[bytes] = []

    async def run(self) -> None:
        while self.reader.ending is None and (data := await self.stream.receive_some()):
            self.reader.feed(bytes(data))
            self.got += self.reader.take()
            self.pings += len(self.reader.pings)
            if self.reader.pings and self.pongs:
                await self.stream.send_all(PONG)
            self.reader.pings = []


PAIRS = pytest.mark.parametrize("pair", [memory_stream_pair, socket_pair])
Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


@PAIRS
async def test_all_that_has_come_is_received_at_once_and_in_order(pair: Pair) -> None:
    left, right = pair()
    ours = client(left)
    payloads = [b"%d" % number for number in range(100)]
    await right.send_all(frames(*payloads) + frames(b"cut")[:3])
    assert await ours.receive() == b"0"
    assert await ours.receive_many() == payloads[1:]
    await right.send_all(frames(b"cut")[3:])
    assert await ours.receive_many() == [b"cut"]
    await right.aclose()
    assert (await lost(ours.receive_many())).code == 1006


async def test_many_payloads_leave_with_one_write_and_none_with_none() -> None:
    left, right = memory_stream_pair()
    writes, deliver = 0, left.send_stream.send_all_hook
    assert deliver is not None

    async def count() -> None:
        nonlocal writes
        writes += 1
        await deliver()

    left.send_stream.send_all_hook = count
    ours = client(left)
    await ours.send_many([b"%d" % number for number in range(100)])
    await ours.send_many([])
    assert writes == 1
    reader = FrameReader(Side.SERVER, MIB)
    reader.feed(bytes(await right.receive_some()))
    assert len(reader.take()) == 100


async def test_15_mib_over_a_socket_each_way() -> None:
    left, right = socket_pair()
    ours, theirs = client(left), WebSocketConnection(right, Side.SERVER, Peer("other"))
    payloads = [b"before", b"x" * 15 * MIB, "ä".encode() * MIB, b"after"]
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        got: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_many, payloads)
            while len(got) < len(payloads):
                got += await receiver.receive_many()
        assert got == payloads
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.close, 1000, "")
        nursery.start_soon(theirs.close, 1000, "")


async def test_a_peer_that_answers_pings_may_think_for_hours(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    ours, peer = client(left), Peering(right)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        with trio.move_on_after(2 * 3600 + 1) as scope:
            await ours.receive()
        assert scope.cancelled_caught
        assert peer.pings == 2 * 3600 // 19
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("talks", [False, True])
async def test_a_peer_that_never_answers_pings_is_given_up_in_40_s(
    autojump_clock: MockClock, talks: bool
) -> None:
    left, right = memory_stream_pair()
    ours, peer = client(left), Peering(right, pongs=False)
    begun = trio.current_time()

    async def talk() -> None:
        while talks:
            await right.send_all(frames(b"talk"))
            await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        nursery.start_soon(talk)

        async def listen() -> None:
            while True:
                assert await ours.receive_many() == [b"talk"]

        closing = await lost(listen())
        nursery.cancel_scope.cancel()
    assert trio.current_time() - begun == pytest.approx(38)  # and 2 s are for looking once a second
    assert closing == Closing(1011, "no pong within 19 s", clean=False)
    assert peer.reader.ending is None or peer.reader.ending.code == 1011


async def test_the_peer_that_is_given_up_is_told(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    ours = client(left)
    assert (await lost(ours.receive())).code == 1011
    peer = Peering(right)
    await peer.run()
    assert peer.reader.ending is not None
    assert peer.reader.ending.code == 1011


async def test_amid_a_long_frame_no_pong_is_expected(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    ours, peer = client(left), Peering(right, pongs=False)
    wire = frames(b"x" * 100_000)

    async def trickle() -> None:
        for start in range(0, len(wire), 1000):
            await right.send_all(wire[start : start + 1000])
            await trio.sleep(0.9)
        peer.pongs = True
        await right.send_all(PONG)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        nursery.start_soon(trickle)
        assert await ours.receive() == b"x" * 100_000
        with trio.move_on_after(100):
            await ours.receive()
        nursery.cancel_scope.cancel()


async def test_while_the_application_reads_nothing_no_pong_is_missed_and_little_is_read(
    autojump_clock: MockClock,
) -> None:
    left, right = memory_stream_pair()
    ours, peer = client(left), Peering(right)
    payloads = [b"%d" % number * 10_000 for number in range(100)]
    for payload in payloads:
        await right.send_all(frames(payload))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await trio.sleep(601)
        assert peer.pings == 601 // 19
        assert sum(map(len, ours._frames.payloads)) < READ_AHEAD_BYTES + READ_BYTES
        got: list[bytes] = []
        while len(got) < len(payloads):
            got += await ours.receive_many()
        assert got == payloads
        with trio.move_on_after(600) as scope:
            await ours.receive()
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


@PAIRS
async def test_a_ping_is_answered_while_the_application_does_something_else(pair: Pair) -> None:
    left, right = pair()
    ours = client(left)
    await right.send_all(b"\x89\x02hi" + frames(b"kept"))
    with trio.fail_after(5):
        assert (await right.receive_some())[:2] == b"\x8a\x82"
    assert await ours.receive() == b"kept"
    await wait_all_tasks_blocked()
    await right.send_all(frames(b"next"))
    assert await ours.receive_many() == [b"next"]
    await right.aclose()
    assert (await lost(ours.receive())).code == 1006


async def test_reading_passes_from_ahead_to_the_application_and_back(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    ours = client(left)
    got: list[bytes] = []
    for number in range(10):
        await trio.sleep(3)  # in which the keeper reads
        with trio.move_on_after(1.5):
            got += await ours.receive_many()
        await right.send_all(PONG + frames(b"%d" % number))
    got += await ours.receive_many()
    assert got == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize("how", ["close frame", "end", "reset"])
async def test_the_end_is_noticed_within_a_second_or_so_while_nobody_receives(how: str) -> None:
    left, right = await tcp_pair()
    ours = client(left)
    await right.send_all(frames(b"last"))
    if how == "close frame":
        await right.send_all(b"\x88\x02\x0f\xa0")
    elif how == "reset":
        right.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how != "close frame":
        await right.aclose()
    await trio.sleep(1.3)
    closing = await lost(ours.send(b"too late"))
    assert closing.code == (4000 if how == "close frame" else 1006)
    assert await ours.receive() == b"last"
    assert await lost(ours.receive()) == closing
    await trio.aclose_forcefully(right)


async def test_a_flood_of_pings_whose_pongs_nobody_reads_stays_small_and_ends(
    autojump_clock: MockClock,
) -> None:
    left, right = lockstep_stream_pair()
    ours = client(left)
    begun = trio.current_time()

    async def flood() -> None:
        for _ in range(100):
            await right.send_all((b"\x89\x7d" + b"p" * 125) * 500)

    tracemalloc.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        closing = await lost(ours.receive())
        assert "write deadline" in closing.reason
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    tracemalloc.stop()
    assert trio.current_time() - begun == pytest.approx(10)


async def test_pings_are_answered_in_order_before_what_follows_and_only_the_last_when_many() -> None:
    left, right = memory_stream_pair()
    ours = WebSocketConnection(left, Side.SERVER, Peer("test"))
    masked = b"\x89\x81\0\0\0\0"
    await right.send_all(masked + b"a" + masked + b"b" + b"\x81\x81\0\0\0\0x")
    await ours.send_many(await ours.receive_many())
    assert await right.receive_some() == b"\x8a\x01a\x8a\x01b\x81\x01x"
    await right.send_all((masked + b"p") * 5000 + b"\x81\x81\0\0\0\0x")
    await ours.receive()
    await wait_all_tasks_blocked()
    pongs = await right.receive_some()
    assert set(pongs[2::3]) == set(b"p")
    assert len(pongs) <= PINGS_OWED * 3 * 20


async def test_the_write_deadline_is_for_progress_not_for_the_whole_frame(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    ours = client(left)
    payload = b"x" * (20 * WRITE_BYTES)
    begun, got = trio.current_time(), 0

    async def read_slowly() -> None:
        nonlocal got
        while got < 10 * WRITE_BYTES:
            got += len(await right.receive_some(WRITE_BYTES))
            await trio.sleep(4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        closing = await lost(ours.send(payload))
    assert "write deadline of 10 s" in closing.reason
    assert 40 < trio.current_time() - begun < 60
    assert got >= 10 * WRITE_BYTES


async def test_a_blocked_send_over_a_socket_is_aborted_and_keeps_little(autojump_clock: MockClock) -> None:
    left, right = socket_pair()
    ours = client(left)
    payload = b"x" * 15 * MIB
    tracemalloc.start()
    closing = await lost(ours.send_many([payload, payload]))
    assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    tracemalloc.stop()
    assert "write deadline of 10 s" in closing.reason
    assert await lost(ours.receive()) == closing
    await right.aclose()


async def test_close_and_receive_leave_a_blocked_sender_of_a_socket_in_peace() -> None:
    left, right = socket_pair()
    ours, peer = client(left), Peering(right)
    payload = b"x" * 4 * MIB
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, payload)
        nursery.start_soon(lost, ours.receive())
        await wait_all_tasks_blocked(0.05)
        ours._wire.interrupt()
        await wait_all_tasks_blocked(0.05)
        nursery.start_soon(ours.close, 1000, "")
        await wait_all_tasks_blocked(0.05)
        await peer.run()
        await right.aclose()
    assert len(peer.got[0]) == len(payload)
    assert peer.reader.ending is not None
    assert peer.reader.ending.code == 1000


async def test_a_sender_cancelled_while_it_waits_its_turn_does_no_harm(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    ours, peer = client(left), Peering(right)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send, b"first")
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await ours.send(b"queued")
        assert scope.cancelled_caught
        nursery.start_soon(peer.run)
        await ours.send(b"last")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert peer.got == [b"first", b"last"]


@pytest.mark.parametrize("in_fragments", [False, True])
async def test_64_mib_are_1009_with_flat_memory(in_fragments: bool) -> None:
    left, right = memory_stream_pair()
    ours = client(left)
    closings: list[Closing] = []

    async def receive() -> None:
        closings.append(await lost(ours.receive()))

    head = b"\x01\x7f" + struct.pack("!Q", MIB) if in_fragments else b"\x81\x7f" + struct.pack("!Q", 64 * MIB)
    chunk = b"x" * MIB
    tracemalloc.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for number in range(64):
            if in_fragments or not number:
                await right.send_all(head)
            await right.send_all(chunk)
            await wait_all_tasks_blocked()
            head = b"\x00" + head[1:]
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
        await right.aclose()
    tracemalloc.stop()
    assert closings[0].code == 1009
    await ours.close(1000, "")


async def test_a_fault_of_ours_costs_the_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    left, _ = memory_stream_pair()
    ours = client(left)

    async def fail() -> None:
        raise RuntimeError("a bug")

    ours._in_background(fail)
    assert (await lost(ours.receive())).reason == "internal error"
    assert "RuntimeError: a bug" in caplog.text
