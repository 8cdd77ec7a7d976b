"""Listeners that speak TLS, and what comes to them."""

import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from rtpipe.transport.connection import Closing, ConnectionLost
from rtpipe.transport.contexts import client_context, server_context
from rtpipe.transport.dialer import DialFailed, DialRefused, dial
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.listening import open_tcp
from rtpipe.transport.server import Handler, serve
from rtpipe.transport.tls import TlsStream
from tests.transport.certificates import Pair, make

WAIT_S = 20.0
Start = Callable[..., Awaitable[int]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def start(nursery: trio.Nursery, pair: Pair) -> Start:
    async def start(handler: Handler, **limits: object) -> int:
        context = server_context(pair.certificate, pair.key)
        listeners = await open_tcp("main", "127.0.0.1", 0, context)
        port = listeners[0].address[1]
        assert listeners[0].url == f"wss://127.0.0.1:{port}"
        nursery.start_soon(lambda: serve(listeners, handler, **limits))  # type: ignore[arg-type]
        return port

    return start


async def echo(exchange: Exchange) -> None:
    connection = await exchange.accept()
    try:
        while True:
            await connection.send(await connection.receive())
    except ConnectionLost:
        pass


async def secured(port: int, pair: Pair) -> TlsStream:
    stream = TlsStream(
        await trio.open_tcp_stream("127.0.0.1", port),
        client_context(pair.authority),
        server_hostname="localhost",
    )
    await stream.do_handshake()
    return stream


async def end_of(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end, be it abrupt."""
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


async def test_a_message_of_15_mib_there_and_back(start: Start, pair: Pair) -> None:
    port = await start(echo)
    message = b"x" * 15 * 2**20
    with trio.fail_after(WAIT_S):
        connection = await dial(f"wss://localhost:{port}/", tls=client_context(pair.authority))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.send, message)
            assert await connection.receive() == message
        await connection.close(1000, "")


async def test_both_directions_of_one_connection_at_once(start: Start, pair: Pair) -> None:
    port = await start(echo)
    messages = [os.urandom(3000 * n).hex().encode() for n in range(1, 30)]

    with trio.fail_after(WAIT_S):
        connection = await dial(f"wss://localhost:{port}/", tls=client_context(pair.authority))

        async def send() -> None:
            for message in messages:
                await connection.send(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert [await connection.receive() for _ in messages] == messages
        await connection.close(1000, "")


async def test_closings_travel_in_both_directions(start: Start, pair: Pair) -> None:
    endings: list[Closing] = []
    ended = trio.Event()

    async def handle(exchange: Exchange) -> None:
        connection = await exchange.accept()
        if exchange.request.path == "/close":
            await connection.close(4000, "enough")
            return
        with pytest.raises(ConnectionLost) as caught:
            await connection.receive()
        endings.append(caught.value.closing)
        ended.set()

    port = await start(handle)
    trusted = client_context(pair.authority)
    with trio.fail_after(WAIT_S):
        connection = await dial(f"wss://localhost:{port}/close", tls=trusted)
        with pytest.raises(ConnectionLost) as caught:
            await connection.receive()
        assert caught.value.closing == Closing(4000, "enough", clean=True)
        connection = await dial(f"wss://localhost:{port}/", tls=trusted)
        await connection.close(3000, "bye")
        await ended.wait()
    assert endings == [Closing(3000, "bye", clean=True)]


@pytest.mark.parametrize("how", ["reset", "end without farewell", "farewell without close frame"])
async def test_a_client_that_breaks_off_is_1006(start: Start, pair: Pair, how: str) -> None:
    ended = trio.Event()
    endings: list[Closing] = []

    async def handle(exchange: Exchange) -> None:
        connection = await exchange.accept()
        with pytest.raises(ConnectionLost) as caught:
            await connection.receive()
        endings.append(caught.value.closing)
        ended.set()

    port = await start(handle)
    with trio.fail_after(WAIT_S):
        below = await trio.open_tcp_stream("127.0.0.1", port)
        stream = TlsStream(below, client_context(pair.authority), server_hostname="localhost")
        await stream.do_handshake()
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
        if how == "reset":
            below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            below.socket.close()
        elif how == "end without farewell":
            await below.aclose()
        else:
            await stream.aclose()
        await ended.wait()
    assert endings[0].code == 1006
    assert not endings[0].clean


async def test_an_answer_ends_with_tls_farewell(start: Start, pair: Pair) -> None:
    async def handle(exchange: Exchange) -> None:
        await exchange.respond(200, b"all of it")

    port = await start(handle)
    with trio.fail_after(WAIT_S):
        stream = await secured(port, pair)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = trio.current_time()
        data = b""
        while more := await stream.receive_some():  # raises if it breaks off
            data += more
        assert trio.current_time() - begun < 0.9  # the server does not wait for us to leave first
        assert data.endswith(b"all of it")
        await stream.aclose()


async def test_refusals_come_through_tls(start: Start, pair: Pair) -> None:
    async def handle(exchange: Exchange) -> None:
        await exchange.respond(401, b"no")

    port = await start(handle)
    with trio.fail_after(WAIT_S), pytest.raises(DialRefused) as caught:
        await dial(f"wss://localhost:{port}/", tls=client_context(pair.authority))
    assert caught.value.status == 401
    assert caught.value.body == b"no"


# --- who does not speak TLS, or not well


async def test_plain_http_is_told_what_is_wrong(start: Start) -> None:
    port = await start(echo)
    with trio.fail_after(WAIT_S):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await end_of(stream)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"tls_required" in answer
    with pytest.raises(DialRefused) as caught:
        await dial(f"ws://127.0.0.1:{port}/")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 9, b"SSH-2.0-x\r\n", os.urandom(70_000), b"\x16\x03\x01\x00\x05hello"]
)
async def test_rubbish_is_shown_the_door(
    start: Start, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    port = await start(echo)
    with trio.fail_after(WAIT_S):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with suppress(trio.BrokenResourceError):  # it may be enough before all of it is sent
                await stream.send_all(rubbish)
                await stream.send_eof()
            answer = await end_of(stream)
    assert not answer.startswith(b"HTTP")
    assert len(answer) < 100
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_slow_handshake_and_a_slow_head_share_one_deadline(
    start: Start, pair: Pair, autojump_clock: MockClock
) -> None:
    port = await start(echo, head_deadline_s=10)

    async def slowly(after_handshake_s: float) -> tuple[float, bytes]:
        begun = trio.current_time()
        if after_handshake_s:
            below = await trio.open_tcp_stream("127.0.0.1", port)
            await trio.sleep(after_handshake_s)
            stream: trio.abc.Stream = TlsStream(
                below, client_context(pair.authority), server_hostname="localhost"
            )
            await stream.do_handshake()  # type: ignore[attr-defined]
            for byte in b"GET / HT":
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.1)
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            for byte in b"\x16\x03\x01\x02\x00\x01":
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)
        answer = await end_of(stream)
        passed = trio.current_time() - begun
        await stream.aclose()
        return passed, answer

    passed, answer = await slowly(0)
    assert 9.9 < passed < 11.2
    assert answer == b""
    passed, answer = await slowly(6)
    assert 9.9 < passed < 11.2
    assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
async def test_old_tls_is_refused(start: Start, pair: Pair) -> None:
    port = await start(echo)
    old = client_context(pair.authority)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with trio.fail_after(WAIT_S), pytest.raises(DialFailed, match="alert protocol version"):
        await dial(f"wss://localhost:{port}/", tls=old)


async def test_another_authority_is_not_trusted(start: Start, tmp_path: Path) -> None:
    port = await start(echo)
    stranger = client_context(make(tmp_path, "localhost", signer="strangers").authority)
    with (
        trio.fail_after(WAIT_S),
        pytest.raises(DialFailed, match=f"TLS with localhost:{port}: certificate verify"),
    ):
        await dial(f"wss://localhost:{port}/", tls=stranger)
