import errno
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio_websocket
from trio.testing import MockClock, wait_all_tasks_blocked

from rtpipe.transport.connection import Closing, ConnectionLost
from rtpipe.transport.exchange import ClientGone, Exchange
from rtpipe.transport.http import RequestRefused
from rtpipe.transport.listening import Listener, open_tcp
from rtpipe.transport.server import Handler, serve

Start = Callable[..., Awaitable[int]]
UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start(handler: Handler, **limits: object) -> int:
        listeners = await open_tcp("main", "127.0.0.1", 0)
        nursery.start_soon(lambda: serve(listeners, handler, **limits))  # type: ignore[arg-type]
        return listeners[0].address[1]

    return start


async def echo(exchange: Exchange) -> None:
    connection = await exchange.accept()
    try:
        while True:
            await connection.send(await connection.receive())
    except ConnectionLost:
        pass


@asynccontextmanager
async def websocket(
    port: int, path: str = "/", **options: object
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    async with trio_websocket.open_websocket(
        "127.0.0.1",
        port,
        path,
        use_ssl=False,
        max_message_size=2**25,
        **options,  # type: ignore[arg-type]
    ) as client:
        yield client
        await client._stream.aclose()  # which trio-websocket leaves open when the server closed first


async def ask(port: int, wire: bytes) -> tuple[int, bytes, dict[str, dict[str, object]]]:
    """Status, head and JSON body of the answer to raw bytes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(wire)
        answer = b"".join([bytes(data) async for data in stream])
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), top.lower(), json.loads(body)


async def test_refusals_have_an_openai_shaped_body(start: Start) -> None:
    port = await start(echo)
    status, top, body = await ask(port, UPGRADE.replace(b"13", b"12") + b"\r\n")
    assert status == 426
    assert b"sec-websocket-version: 13" in top
    assert set(body["error"]) == {"message", "type", "code", "param"}
    assert body["error"]["type"] == "invalid_request_error"
    assert (await ask(port, b"GET /" + b"x" * 2**16 + b" HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 414
    assert (await ask(port, b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 2000 + b"\r\n"))[0] == 431
    assert (await ask(port, b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 2**18 + b"\r\n\r\n"))[0] == 431


@pytest.mark.parametrize("wire", [b"", b"GET / HTTP/1.1\r\nHost: slow"])
async def test_a_head_that_does_not_come_is_closed_in_10_s(
    start: Start, autojump_clock: MockClock, wire: bytes
) -> None:
    port = await start(echo)
    begun = trio.current_time()
    status, _, _ = await ask(port, wire)
    assert status == 408
    assert trio.current_time() - begun == pytest.approx(10)


async def test_a_head_that_trickles_is_closed_in_10_s(start: Start, autojump_clock: MockClock) -> None:
    port = await start(echo)
    begun = trio.current_time()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in UPGRADE * 10:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.5)

        nursery.start_soon(trickle)
        answer = b"".join([bytes(data) async for data in stream])
        nursery.cancel_scope.cancel()
    assert b" 408 " in answer
    assert trio.current_time() - begun < 11


async def test_a_plain_answer_and_a_body(start: Start) -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.request.peer.address == "127.0.0.1"
        assert exchange.request.peer.listener == "main"
        await exchange.respond(200, {"got": (await exchange.read_body(10)).decode()}, {"X-More": "1"})

    port = await start(handler)
    post = b"POST / HTTP/1.1\r\nHost: h\r\n"
    assert (await ask(port, post + b"Content-Length: 5\r\n\r\nhello"))[::2] == (200, {"got": "hello"})
    assert (await ask(port, post + b"\r\n"))[::2] == (200, {"got": ""})
    chunked = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert (await ask(port, post + chunked))[2] == {"got": "hello"}
    assert (await ask(port, post + b"Content-Length: 11\r\n\r\nhello hello"))[0] == 413
    assert (await ask(port, post + b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n"))[0] == 400


async def test_a_client_that_wants_100_first_and_one_whose_body_never_comes(
    start: Start, autojump_clock: MockClock
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.read_body(10)

    port = await start(handler)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = b"".join([bytes(data) async for data in stream])
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 408 " in answer


async def test_the_handshake_byte_by_byte_with_a_frame_behind_it(start: Start) -> None:
    port = await start(echo)
    masked = b"\x81\x82\0\0\0\0hi"
    for piece in (1, 1000):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            wire = UPGRADE + b"\r\n" + masked
            for begin in range(0, len(wire), piece):
                await stream.send_all(wire[begin : begin + piece])
            answer = b""
            while not answer.endswith(b"\x81\x02hi"):
                answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
        assert b"Protocol" not in answer.partition(b"\r\n")[2]
        assert b"Extensions" not in answer


async def test_the_subprotocol_and_no_compression(start: Start) -> None:
    async def handler(exchange: Exchange) -> None:
        with pytest.raises(ValueError):
            await exchange.accept("unheard-of")
        connection = await exchange.accept("realtime")
        await connection.close(1000, "")

    port = await start(handler)
    async with websocket(
        port,
        subprotocols=["key.secret", "realtime"],
        extra_headers=[(b"Sec-WebSocket-Extensions", b"permessage-deflate")],
    ) as client:
        assert client.subprotocol == "realtime"
        assert not [name for name, _ in client.handshake_headers if b"extensions" in name]


async def test_accepting_what_is_no_upgrade_is_an_error_of_the_handler(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    port = await start(echo)
    status, _, body = await ask(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert status == 500
    assert body["error"]["type"] == "server_error"
    assert "asks for no WebSocket" in caplog.text


async def test_15_mib_pass_and_64_mib_are_1009(start: Start) -> None:
    port = await start(echo)
    async with websocket(port) as client:
        await client.send_message("x" * 15 * 2**20)
        assert len(await client.get_message()) == 15 * 2**20
        with suppress(trio_websocket.ConnectionClosed):
            await client.send_message("x" * 64 * 2**20)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
    assert caught.value.reason is not None
    assert caught.value.reason.code == 1009


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 3000, 4000])
async def test_close_codes_each_way(start: Start, code: int) -> None:
    seen: list[Closing] = []

    async def handler(exchange: Exchange) -> None:
        connection = await exchange.accept()
        if exchange.request.path == "/":
            with pytest.raises(ConnectionLost) as caught:
                await connection.receive()
            seen.append(caught.value.closing)
        await connection.close(code, "from the server")

    port = await start(handler)
    async with websocket(port) as client:
        await client.aclose(code, "from the client")
    assert seen == [Closing(code, "from the client", clean=True)]
    async with websocket(port, "/other") as client:
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.reason) == (code, "from the server")


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_client_that_vanishes_is_1006_at_once(start: Start, how: str) -> None:
    accepted, noticed = trio.Event(), trio.Event()
    seen: list[Closing] = []

    async def handler(exchange: Exchange) -> None:
        connection = await exchange.accept()
        accepted.set()
        try:
            await connection.receive()
        except ConnectionLost as error:
            seen.append(error.closing)
        noticed.set()

    port = await start(handler)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(UPGRADE + b"\r\n")
    await accepted.wait()
    if how == "reset":
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()
    with trio.fail_after(1):
        await noticed.wait()
    assert seen[0].code == 1006
    assert not seen[0].clean


async def test_a_handler_that_raises_costs_its_own_connection_alone(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.request.path == "/refused":
            raise RequestRefused(403, "forbidden", "Not you.", {"X-Why": "because"})
        if exchange.request.path == "/silent":
            return
        if exchange.request.path == "/group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: exchange.accept("never offered"))
        if exchange.request.param("accept"):
            await exchange.accept()
        if exchange.request.path == "/broken":
            raise RuntimeError("a bug")
        await echo(exchange)

    port = await start(handler)
    async with websocket(port) as bystander:
        status, top, body = await ask(port, UPGRADE.replace(b"/v1/realtime", b"/refused") + b"\r\n")
        assert (status, body["error"]["code"]) == (403, "forbidden")
        assert b"x-why: because" in top
        for path in (b"/broken", b"/silent", b"/group"):
            assert (await ask(port, UPGRADE.replace(b"/v1/realtime", path) + b"\r\n"))[0] == 500
        async with websocket(port, "/broken?accept=1") as client:
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await client.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1011
        await bystander.send_message("still here")
        assert await bystander.get_message() == "still here"
    assert caplog.text.count("RuntimeError: a bug") == 2


async def test_the_clients_leaving_ends_what_it_waits_for(start: Start) -> None:
    dialling, ended = trio.Event(), trio.Event()

    async def dial() -> None:
        dialling.set()
        await trio.sleep_forever()

    async def handler(exchange: Exchange) -> None:
        with pytest.raises(ClientGone):
            await exchange.unless_gone(dial)
        ended.set()

    port = await start(handler)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(UPGRADE + b"\r\n")
    await dialling.wait()
    await stream.aclose()
    with trio.fail_after(1):
        await ended.wait()


async def test_frames_sent_while_the_handler_dials_are_kept_and_its_errors_come_bare(start: Start) -> None:
    early = trio.Event()

    async def dial() -> str:
        await early.wait()
        return "dialled"

    async def fail() -> None:
        raise LookupError

    async def handler(exchange: Exchange) -> None:
        assert await exchange.unless_gone(dial) == "dialled"
        with pytest.raises(LookupError):
            await exchange.unless_gone(fail)
        await echo(exchange)

    port = await start(handler)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(UPGRADE + b"\r\n")
        await stream.send_all(b"\x81\x82\0\0\0\0hi")
        await wait_all_tasks_blocked(0.05)  # so that the gateway has read it
        early.set()
        answer = b""
        while not answer.endswith(b"\x81\x02hi"):
            answer += await stream.receive_some()


async def test_300_connections_come_and_go_and_leave_nothing(start: Start) -> None:
    port = await start(echo)
    await wait_all_tasks_blocked()
    tasks, descriptors = trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))

    async def visit(number: int) -> None:
        if number % 3 == 0:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(UPGRADE[: number * 2])
            await stream.aclose()
            return
        async with websocket(port) as client:
            await client.send_message(str(number))
            assert await client.get_message() == str(number)
            if number % 3 == 1:
                await client._stream.aclose()  # no goodbye

    for batch in range(6):
        async with trio.open_nursery() as nursery:
            for number in range(batch * 50, batch * 50 + 50):
                nursery.start_soon(visit, number)
    with trio.fail_after(5):
        while trio.lowlevel.current_statistics().tasks_living > tasks:
            await wait_all_tasks_blocked(0.01)
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_accept_pauses_when_descriptors_run_out(
    start: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    listener = (await open_tcp("main", "127.0.0.1", 0))[0]
    port, attempts = listener.address[1], 0
    accept = listener.socket.accept

    async def poor_accept() -> trio.SocketStream:
        nonlocal attempts
        attempts += 1
        if attempts <= 20:
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept()

    listener.socket.accept = poor_accept  # type: ignore[method-assign]
    begun = trio.current_time()
    nursery.start_soon(lambda: serve([listener], echo))
    async with websocket(port):
        assert trio.current_time() - begun >= 2
    assert caplog.text.count("accept paused") == 1


async def test_a_cancelled_server_says_1001_and_one_that_drains_goes_on(nursery: trio.Nursery) -> None:
    listeners: list[Listener] = await open_tcp("main", "127.0.0.1", 0)
    port = listeners[0].address[1]
    accepting, handling = trio.CancelScope(), trio.CancelScope()

    async def run(scope: trio.CancelScope, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        with scope:
            async with trio.open_nursery() as inner:
                task_status.started(inner)
                await trio.sleep_forever()

    handlers = await nursery.start(lambda task_status: run(handling, task_status))

    async def accept() -> None:
        with accepting:
            await serve(listeners, echo, nursery=handlers)

    nursery.start_soon(accept)
    async with websocket(port) as client:
        accepting.cancel()
        await wait_all_tasks_blocked()
        with pytest.raises(OSError, match=r".+"):
            await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_message("draining")
        assert await client.get_message() == "draining"
        handling.cancel()
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.get_message()
    assert caught.value.reason is not None
    assert caught.value.reason.code == 1001


async def test_many_idle_sockets_keep_nobody_out(start: Start) -> None:
    port = await start(echo)
    idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(200)]
    async with websocket(port) as client:
        await client.send_message("in")
        assert await client.get_message() == "in"
    for stream in idle:
        await trio.aclose_forcefully(stream)


async def test_nothing_of_a_request_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rtpipe.transport")

    async def handler(exchange: Exchange) -> None:
        await exchange.accept(exchange.request.headers.get("x-missing") or "nothing offered")

    port = await start(handler)
    wire = UPGRADE.replace(b"realtime", b"realtime?key=sk-secret") + b"Authorization: Bearer sk-secret\r\n"
    assert (await ask(port, wire + b"\r\n"))[0] == 500
    assert (await ask(port, wire.replace(b"13", b"12") + b"\r\n"))[0] == 426
    assert caplog.records
    assert "Bearer" not in caplog.text
    assert "key=sk" not in caplog.text
