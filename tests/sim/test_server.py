from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest
import trio
import trio_websocket

from rtpipe.sim import SimOptions, serve
from tests.sim.kit import check_event

WAIT_SECONDS = 10
PATH = "/v1/realtime?model=gpt-realtime-2.1"
UPGRADE = b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[str, int]]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(WAIT_SECONDS):
            yield await nursery.start(serve, SimOptions(**{"pace": 0, "seed": 1, **options}))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def opened(
    address: tuple[str, int], path: str = PATH, **settings: Any
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    # trio_websocket's own open_websocket leaves the TCP stream open when the server closes first.
    async with await trio.open_tcp_stream(*address) as stream, trio.open_nursery() as nursery:
        socket = await trio_websocket.wrap_client_stream(nursery, stream, address[0], path, **settings)
        yield socket
        await socket.aclose()


@asynccontextmanager
async def joined(
    address: tuple[str, int], path: str = PATH, **settings: Any
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """As `opened`, for connections that do not end well: it leaves without a goodbye."""
    stream = await trio.open_tcp_stream(*address)
    async with trio.open_nursery() as nursery:
        yield await trio_websocket.wrap_client_stream(nursery, stream, address[0], path, **settings)
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)


async def receive(socket: trio_websocket.WebSocketConnection) -> dict[str, Any]:
    event = msgspec.json.decode(await socket.get_message())
    check_event(event)
    return event


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode())]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/realtime?model=gpt-realtime-2.1", "gpt-realtime-2.1"),
        ("/realtime?model=gpt-realtime", "gpt-realtime"),
        ("/openai/realtime?model=my-deployment", "my-deployment"),
        ("/openai/v1/realtime?x=1&model=a%2Fb", "a/b"),
    ],
)
async def test_the_model_is_in_the_address(path: str, model: str) -> None:
    async with serving() as address, opened(address, path) as socket:
        assert (await receive(socket))["session"]["model"] == model


async def test_every_connection_is_a_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rtpipe.sim")
    async with serving() as address, opened(address) as one:
        first = (await receive(one))["session"]["id"]
        async with opened(address) as two:
            second = (await receive(two))["session"]["id"]
            await two.send_message('{"type": "response.create"}')
        await one.send_message('{"type": "session.update", "session": {"type": "realtime"}}')
        assert (await receive(one))["session"]["id"] == first != second
    assert not caplog.records


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_headers": bearer("right")},
        {"extra_headers": [(b"api-key", b"right")]},
        {"subprotocols": ["realtime", "openai-insecure-api-key.right"]},
    ],
)
async def test_the_right_key(settings: dict[str, Any]) -> None:
    async with serving(api_keys=frozenset({"right"})) as address, opened(address, **settings) as socket:
        assert (await receive(socket))["type"] == "session.created"
        assert socket.subprotocol == ("realtime" if "subprotocols" in settings else None)


async def handshake(
    address: tuple[str, int], *headers: str, target: str = PATH
) -> tuple[str, dict[str, str], Any]:
    """The status line, headers and JSON body a handshake is refused with."""
    asked = (
        f"GET {target} HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
        "\r\n",
    )
    return await exchange(address, "\r\n".join(asked).encode())


async def exchange(address: tuple[str, int], request: bytes) -> tuple[str, dict[str, str], Any]:
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(request)
        answer = b"".join([received async for received in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    assert int(fields["content-length"]) == len(body)
    return status, fields, msgspec.json.decode(body)


async def call(
    address: tuple[str, int], method: str, path: str, body: Any = None, *headers: str
) -> tuple[int, Any]:
    """Status and JSON body of a plain HTTP request."""
    payload = b"" if body is None else msgspec.json.encode(body)
    head = (f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(payload)}", *headers, "\r\n")
    status, _, answer = await exchange(address, "\r\n".join(head).encode() + payload)
    return int(status.split()[1]), answer


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Authorization: Bearer wrong"],
        ["Authorization: Basic right"],
        ["api-key: wrong"],
    ],
)
async def test_another_key_or_none(headers: list[str]) -> None:
    async with serving(api_keys=frozenset({"right"})) as address:
        status, fields, body = await handshake(address, *headers)
    assert status.startswith("HTTP/1.1 401")
    assert fields["content-type"] == "application/json"
    assert (body["error"]["type"], body["error"]["code"]) == ("invalid_request_error", "invalid_api_key")


async def test_refusing_everybody() -> None:
    async with serving(faults=("refuse 429 retry-after 7",)) as address:
        status, fields, body = await handshake(address)
    assert status.startswith("HTTP/1.1 429")
    assert fields["retry-after"] == "7"
    assert body["error"]["message"]


async def test_hanging() -> None:
    async with serving(faults=("hang",)) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(UPGRADE)
        with trio.move_on_after(0.1) as waited:
            await stream.receive_some()
        assert waited.cancelled_caught
        await stream.aclose()


@pytest.mark.parametrize(
    ("path", "settings", "code", "error"),
    [
        (PATH, {"extra_headers": [(b"openai-beta", b"realtime=v1")]}, 4000, "beta_api_shape_disabled"),
        (PATH, {"subprotocols": ["realtime", "openai-beta.realtime-v1"]}, 4000, "beta_api_shape_disabled"),
        (PATH, {"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]}, 3000, "invalid_api_key"),
        ("/v1/realtime", {"extra_headers": bearer("right")}, 4000, "missing_model"),
        ("/v1/realtime?model=gpt-9", {"extra_headers": bearer("right")}, 4000, "model_not_found"),
    ],
)
async def test_told_in_band_why_not(path: str, settings: dict[str, Any], code: int, error: str) -> None:
    async with (
        serving(api_keys=frozenset({"right"}), models=frozenset({"gpt-realtime"})) as address,
        opened(address, path, **settings) as socket,
    ):
        assert (await receive(socket))["error"]["code"] == error
        assert await ending(socket) == (code, f"invalid_request_error.{error}")


async def ending(socket: trio_websocket.WebSocketConnection) -> tuple[int, str | None]:
    """How the server closes the socket, after whatever it still sends."""
    with suppress(trio_websocket.ConnectionClosed):
        while True:
            await socket.get_message()
    assert socket.closed is not None
    return socket.closed.code, socket.closed.reason


async def test_azure_refuses_every_wrong_key_at_the_handshake() -> None:
    async with serving(api_keys=frozenset({"right"}), azure=True) as address:
        status, _, _ = await handshake(address, "Sec-WebSocket-Protocol: openai-insecure-api-key.wrong")
    assert status.startswith("HTTP/1.1 401")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/live/sessions", 404),
        ("GET", PATH, 426),
        ("POST", "/v1/realtime", 426),
        ("GET", "/v1/realtime/client_secrets", 405),
        ("PUT", "/sim/faults", 405),
    ],
)
async def test_requests_for_something_else(method: str, path: str, status: int) -> None:
    async with serving() as address:
        got, body = await call(address, method, path)
    assert got == status
    assert body["error"].keys() == {"type", "code", "message", "param"}


async def test_a_call_cannot_be_joined() -> None:
    async with serving() as address:
        status, _, body = await handshake(address, target="/v1/realtime?call_id=rtc_1")
    assert status.startswith("HTTP/1.1 404")
    assert body["error"]["code"] == "call_id_not_found"


async def test_a_body_without_end() -> None:
    async with serving() as address:
        assert (await call(address, "POST", "/sim/faults", "x" * 2**20))[0] == 413


async def test_messages_of_16_mib() -> None:
    event = {"type": "input_audio_buffer.append", "audio": "A" * (16 * 2**20)}
    async with serving() as address, opened(address) as socket:
        await receive(socket)
        await socket.send_message(msgspec.json.encode(event).decode())
        await socket.send_message('{"type": "input_audio_buffer.clear"}')
        assert (await receive(socket))["type"] == "input_audio_buffer.cleared"


async def test_clients_that_break_off_disturb_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rtpipe.sim")
    async with serving(pace=1.0) as address, opened(address) as other:
        for request in (b"", b"GET", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(request)
            await stream.aclose()
        async with trio.open_nursery() as nursery:
            stream = await trio.open_tcp_stream(*address)
            socket = await trio_websocket.wrap_client_stream(nursery, stream, "x", PATH)
            await socket.send_message('{"type": "response.create"}')
            while (await receive(socket))["type"] != "response.output_audio.delta":
                pass
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()
        assert (await receive(other))["type"] == "session.created"
        await other.send_message('{"type": "input_audio_buffer.clear"}')
        assert (await receive(other))["type"] == "input_audio_buffer.cleared"
    assert not caplog.records
