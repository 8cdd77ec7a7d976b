"""What a connection that breaks in mid send had taken: not one payload too many, not one too few."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from rtpipe.transport.connection import Connection, ConnectionLost, Peer
from rtpipe.transport.contexts import client_context, server_context
from rtpipe.transport.encoding import Side, encode, whole_frames
from rtpipe.transport.frames import FrameReader, Reassembly
from rtpipe.transport.jsonlines import JsonLines
from rtpipe.transport.tls import TlsStream
from rtpipe.transport.websocket import WebSocketConnection
from tests.transport.certificates import make

WAIT_S = 20.0
Streams = tuple[trio.abc.Stream, trio.abc.Stream]


async def over_tcp() -> Streams:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        ours = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        return ours, await listener.accept()


async def over_unix() -> Streams:
    left, right = trio.socket.socketpair()
    return trio.SocketStream(left), trio.SocketStream(right)


async def over_tls(authority: Path, context: ssl.SSLContext) -> Streams:
    left, right = await over_tcp()
    ours = TlsStream(left, context, server_side=True)
    theirs = TlsStream(right, client_context(authority), server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    return ours, theirs


def payloads(count: int, size: int) -> list[bytes]:
    return [b'{"n":%d,"x":"%s"}' % (number, b"x" * size) for number in range(count)]


async def send_until_broken(connection: Connection) -> None:
    while True:
        await connection.send(b"{}")


async def read_until_broken(stream: trio.abc.Stream) -> bytes:
    data = bytearray()
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for more in stream:
            data += more
    await trio.aclose_forcefully(stream)
    return bytes(data)


def frames_in(data: bytes) -> list[bytes]:
    reader = FrameReader(Side.CLIENT, 2**24, b"", Reassembly())
    reader.feed(data)
    got = reader.take()
    while reader.more:
        reader.feed(b"")
        got += reader.take()
    return [bytes(payload) for payload in got]


def lines_in(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


async def cut_in_mid_send(ours: Connection, theirs: trio.abc.Stream, many: list[bytes]) -> tuple[int, bytes]:
    """How many of *many* count as taken by a send that is cut while the peer does not read, and what came."""
    taken: list[int] = []

    async def send() -> None:
        with pytest.raises(ConnectionLost) as caught:
            await ours.send_many(many)
        taken.append(caught.value.taken)

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.05)
            ours.abort("cut")
        return taken[0], await read_until_broken(theirs)


@pytest.mark.parametrize("over", [over_tcp, over_unix])
async def test_a_websocket_counts_the_frames_that_left_whole(over: Callable[[], Awaitable[Streams]]) -> None:
    left, theirs = await over()
    ours = WebSocketConnection(left, Side.SERVER, Peer("test"))
    many = payloads(20_000, 600)
    taken, data = await cut_in_mid_send(ours, theirs, many)
    assert 0 < taken < len(many)
    assert frames_in(data) == many[:taken]


async def test_over_tls_nothing_that_came_counts_as_not_taken(tmp_path: Path) -> None:
    pair = make(tmp_path, "localhost")
    left, theirs = await over_tls(pair.authority, server_context(pair.certificate, pair.key))
    ours = WebSocketConnection(left, Side.SERVER, Peer("test"))
    many = payloads(20_000, 600)
    taken, data = await cut_in_mid_send(ours, theirs, many)
    came = len(frames_in(data))
    assert came <= taken < len(many)
    missing = sum(map(len, many[came:taken]))
    assert ours.unacknowledged() >= missing  # so it is known how much may be lost


async def test_json_lines_count_the_lines_that_left_whole() -> None:
    left, theirs = await over_unix()
    ours = JsonLines(left, Peer("test"))
    many = payloads(20_000, 600)
    taken, data = await cut_in_mid_send(ours, theirs, many)
    assert 0 < taken < len(many)
    assert lines_in(data) == many[:taken]


@pytest.mark.parametrize("kind", ["websocket", "tls"])
async def test_a_connection_that_was_broken_before_takes_nothing(kind: str, tmp_path: Path) -> None:
    pair = make(tmp_path, "localhost")
    over = partial(over_tls, pair.authority, server_context(pair.certificate, pair.key))
    left, theirs = await (over_tcp() if kind == "websocket" else over())
    ours = WebSocketConnection(left, Side.SERVER, Peer("test"))
    await trio.aclose_forcefully(theirs)
    with trio.fail_after(WAIT_S), pytest.raises(ConnectionLost) as lost:
        await send_until_broken(ours)
    assert lost.value.taken == 0


async def test_what_was_taken_and_not_acknowledged_is_known_also_after_the_end() -> None:
    left, theirs = await over_tcp()
    ours = WebSocketConnection(left, Side.SERVER, Peer("test"))
    await ours.send(b"{}")
    assert frames_in(bytes(await theirs.receive_some())) == [b"{}"]
    many = payloads(20_000, 600)
    taken, _ = await cut_in_mid_send(ours, theirs, many)
    assert 0 < ours.unacknowledged() <= sum(map(len, many[: taken + 1])) + 4 * (taken + 1)


@pytest.mark.parametrize("side", list(Side))
def test_whole_frames(side: Side) -> None:
    many = [b"", b"x" * 125, b"x" * 126, b"x" * 65_535, b"x" * 65_536, b"y"]
    sizes = [sum(map(len, encode(many[:count], side))) for count in range(len(many) + 1)]
    for count, size in enumerate(sizes):
        assert whole_frames(many, side, size) == count
        assert count == 0 or whole_frames(many, side, size - 1) == count - 1
