"""The simulated model behind a WebSocket address."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio
import trio_websocket

from .errors import error_object
from .options import SimOptions
from .session import DEFAULT_MODEL, run_session

MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # an append alone may carry 15 MiB
MESSAGE_QUEUE = 16
HANDSHAKE_SECONDS = 60
CLOSE_SECONDS = 10
BETA_CLOSE_CODE = 4000
BETA_CLOSE_REASON = "invalid_request_error.beta_api_shape_disabled"
_KEY_SUBPROTOCOL = "openai-insecure-api-key."

_ENDINGS = (
    trio.BrokenResourceError,
    trio.TooSlowError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
)

log = logging.getLogger(__name__)


async def serve(
    options: SimOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `task_status` receives the address that was bound, as (host, port)."""
    options = options or SimOptions()
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound = listeners[0].socket.getsockname()
    served = itertools.count()

    async def connection(stream: trio.SocketStream) -> None:
        try:
            await _connection(stream, options, next(served))
        except* _ENDINGS as gone:
            log.debug("the connection is gone: %r", gone.exceptions)
        except* Exception:
            # A fault of one session must not end the others.
            log.exception("a simulated session failed")

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, connection, listeners)
        task_status.started((bound[0], bound[1]))


async def _connection(stream: trio.SocketStream, options: SimOptions, number: int) -> None:
    if options.hang:
        async for _ in stream:
            pass
        return
    async with trio.open_nursery() as nursery:
        with trio.fail_after(HANDSHAKE_SECONDS):
            request = await trio_websocket.wrap_server_stream(
                nursery, stream, message_queue_size=MESSAGE_QUEUE, max_message_size=MAX_MESSAGE_BYTES
            )
        await _answer(request, options, number)
        nursery.cancel_scope.cancel()


async def _answer(request: trio_websocket.WebSocketRequest, options: SimOptions, number: int) -> None:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
    if options.refuse:
        status, refusal_headers = options.refuse
        await _reject(
            request, status, error_object(None, f"Refused with HTTP {status}, as told to."), refusal_headers
        )
        return
    if options.api_keys is not None and _key(headers, request.proposed_subprotocols) not in options.api_keys:
        await _reject(request, 401, error_object("invalid_api_key", "Incorrect API key provided."), {})
        return
    subprotocol = "realtime" if "realtime" in request.proposed_subprotocols else None
    socket = await request.accept(subprotocol=subprotocol)
    code, reason = 1000, None
    if "realtime=v1" in headers.get("openai-beta", ""):
        code, reason = BETA_CLOSE_CODE, BETA_CLOSE_REASON
    else:
        await _session(socket, options, number)
    with trio.move_on_after(CLOSE_SECONDS):
        await socket.aclose(code, reason)


async def _session(socket: trio_websocket.WebSocketConnection, options: SimOptions, number: int) -> None:
    async def receive() -> str | bytes | None:
        try:
            return await socket.get_message()
        except trio_websocket.ConnectionClosed:
            return None

    async def send(text: str) -> None:
        try:
            await socket.send_message(text)
        except trio_websocket.ConnectionClosed as closed:
            raise trio.BrokenResourceError from closed

    if options.seed is not None:
        # Two connections are two sessions, and must not share their ids.
        options = msgspec.structs.replace(options, seed=options.seed + number)
    model = parse_qs(urlsplit(socket.path or "").query).get("model", [DEFAULT_MODEL])[0]
    await run_session(receive, send, options, model=model)


def _key(headers: dict[str, str], subprotocols: tuple[str, ...]) -> str | None:
    """The bearer key, or the one a browser can only send as a subprotocol."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key
    offered = (name for name in subprotocols if name.startswith(_KEY_SUBPROTOCOL))
    return next(offered, "").removeprefix(_KEY_SUBPROTOCOL) or None


async def _reject(
    request: trio_websocket.WebSocketRequest,
    status: int,
    error: dict[str, object],
    headers: Mapping[str, str],
) -> None:
    body = msgspec.json.encode({"error": error})
    sent = [("content-type", "application/json"), ("content-length", str(len(body))), *headers.items()]
    await request.reject(
        status,
        extra_headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent],
        body=body,
    )
