"""The simulated model behind an address: WebSockets, client secrets, and orders for faults."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import trio
import trio_websocket

from .client_secrets import ClientSecrets
from .door import Credential, Door, InBand
from .errors import ClientError, error_object
from .http import BadRequest, Request, answer, read_request
from .ids import Ids
from .line import WebSocketLine, Wire
from .options import SimOptions
from .orders import Orders
from .served import Served

REALTIME_PATHS = ("/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime")
SECRET_PATHS = tuple(f"{path}/client_secrets" for path in REALTIME_PATHS)
FAULTS_PATH = "/sim/faults"
MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # an append alone may carry 15 MiB
MESSAGE_QUEUE = 16
HANDSHAKE_SECONDS = 60

_ENDINGS = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
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
    server = _Server(options or SimOptions())
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, server.connection, listeners)
        task_status.started((bound[0], bound[1]))


class _Server:
    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._orders = Orders(options.faults)
        self._secrets = ClientSecrets(options)
        self._door = Door(options, self._secrets)
        self._sessions = 0

    async def connection(self, stream: trio.SocketStream) -> None:
        try:
            await self._exchange(stream)
        except* _ENDINGS as gone:
            log.debug("the connection is gone: %r", gone.exceptions)
        except* Exception:
            # A fault of one session must not end the others.
            log.exception("a simulated session failed")

    async def _exchange(self, stream: trio.SocketStream) -> None:
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                request = await read_request(stream)
            if request is not None:
                await self._route(stream, request)
        except BadRequest as error:
            await answer(stream, error.status, {"error": error_object(error.code, str(error))}, error.headers)

    async def _route(self, stream: trio.SocketStream, request: Request) -> None:
        """Answer one request. Raises BadRequest."""
        match request.method, request.path:
            case "POST", path if path in SECRET_PATHS:
                self._door.check_key(request)
                await answer(stream, 200, self._judged(self._secrets.make, request.body))
            case "POST", path if path == FAULTS_PATH:
                await answer(stream, 200, await self._order(request.body))
            case "GET", path if path == FAULTS_PATH:
                await answer(stream, 200, self._orders.view())
            case "DELETE", path if path == FAULTS_PATH:
                self._orders.clear()
                await answer(stream, 200, self._orders.view())
            case "GET", path if path in REALTIME_PATHS and request.upgrades:
                await self._realtime(stream, request)
            case _, path if path in REALTIME_PATHS:
                raise BadRequest(426, "This address speaks WebSocket.", headers=(("Upgrade", "websocket"),))
            case _, path if path in (*SECRET_PATHS, FAULTS_PATH):
                raise BadRequest(405, f"{request.method} is not for this address.")
            case method, path:
                raise BadRequest(404, f"Invalid URL ({method} {path})")

    def _judged(self, make: Any, body: bytes) -> Any:
        try:
            return make(body)
        except ClientError as error:
            raise BadRequest(400, error.message, code=error.code) from None

    async def _order(self, body: bytes) -> dict[str, Any]:
        try:
            return await self._orders.take(body)
        except ValueError as error:
            raise BadRequest(400, str(error)) from None

    async def _realtime(self, stream: trio.SocketStream, request: Request) -> None:
        if refusal := self._orders.refusal():
            if refusal.status is None:
                async for _ in stream:  # until the client has had enough
                    pass
                return
            raise BadRequest(
                refusal.status, f"Refused with HTTP {refusal.status}, as told to.", headers=refusal.headers
            )
        admitted = self._door.admit(request)
        wire = Wire(stream, request.raw)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(HANDSHAKE_SECONDS):
                handshake = await trio_websocket.wrap_server_stream(
                    nursery, wire, message_queue_size=MESSAGE_QUEUE, max_message_size=MAX_MESSAGE_BYTES
                )
                # A browser fails where none of the names that it offers is taken.
                spoken = "realtime" if "realtime" in request.subprotocols else None
                socket = await handshake.accept(subprotocol=spoken)
            line = WebSocketLine(socket, wire)
            if isinstance(admitted, InBand):
                await self._turn_away(line, admitted)
            else:
                await self._serve(line, admitted)
            nursery.cancel_scope.cancel()

    async def _turn_away(self, line: WebSocketLine, why: InBand) -> None:
        if why.at_first_event and await line.receive() is None:
            return
        stamped = {"event_id": Ids(self._options.seed).new("event"), **why.error.event(None)}
        await line.send(msgspec.json.encode(stamped).decode())
        await line.close(why.close_code, f"invalid_request_error.{why.error.code}")

    async def _serve(self, line: WebSocketLine, admitted: Credential) -> None:
        self._sessions += 1
        options = self._options
        if options.seed is not None:
            # Two connections are two sessions, and must not share their ids.
            options = msgspec.structs.replace(options, seed=options.seed + self._sessions - 1)
        served = Served(line, options, self._sessions, self._orders.for_next())
        with self._orders.while_live(served):
            await served.run(model=admitted.model, bound=admitted.bound)
