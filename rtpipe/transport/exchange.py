"""One request and its one answer: what a handler is given."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import h11
import trio
from wsproto.utilities import generate_accept_token

from rtpipe.transport.connection import (
    ABNORMAL,
    WRITE_DEADLINE_S,
    Closing,
    Connection,
    ConnectionLost,
)
from rtpipe.transport.encoding import Side
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.http import Body, Request, RequestRefused, error_body, respond
from rtpipe.transport.websocket import MAX_MESSAGE_BYTES, WebSocketConnection

BODY_DEADLINE_S: Final = 10.0
_READ_BYTES: Final = 16 * 2**10
_EARLY_BYTES: Final = 64 * 2**10

T = TypeVar("T")


class ClientGone(Exception):
    """The client left before it had its answer."""


class Exchange:
    """A request that waits for its answer: either respond(), or accept() for a WebSocket."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        parser: h11.Connection,
        request: Request,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        reassembly: Reassembly | None = None,
        write_deadline_s: float = WRITE_DEADLINE_S,
    ) -> None:
        self.request = request
        self._stream = stream
        self._parser = parser
        self._max_message_bytes = max_message_bytes
        self._reassembly = reassembly
        self._write_deadline_s = write_deadline_s
        self._connection: Connection | None = None

    async def read_body(self, limit: int) -> bytes:
        """The request's body, of at most `limit` bytes.

        Raises RequestRefused (413, 408, 400), which a handler may let pass: it becomes the answer.
        """
        body = bytearray()
        try:
            with trio.fail_after(BODY_DEADLINE_S):
                while (piece := await self._next_piece()) is not None:
                    body += piece
                    if len(body) > limit:
                        raise RequestRefused(413, "body_too_large", f"The body may have {limit} bytes.")
        except trio.TooSlowError:
            raise RequestRefused(408, "request_timeout", "The body did not come in time.") from None
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            raise RequestRefused(400, "bad_request", "The body broke off or is not valid HTTP/1.1.") from None
        return bytes(body)

    async def respond(self, status: int, body: Body, headers: dict[str, str] | None = None) -> None:
        """Answer in plain HTTP and end the connection. A client that has left is no error.

        A dict becomes JSON. Raises h11.LocalProtocolError for headers that may not be sent.
        """
        to_head = self.request.method == "HEAD"
        await respond(self._stream, self._parser, status, body, headers, to_head=to_head)

    async def accept(self, subprotocol: str | None = None) -> Connection:
        """Answer 101 and return the WebSocket. It is closed at the latest when the handler returns.

        Raises ValueError for a request that is no upgrade or a subprotocol the client did not offer, and
        ConnectionLost when the client has left.
        """
        if not self.request.is_upgrade:
            raise ValueError("the request asks for no WebSocket")
        if subprotocol is not None and subprotocol not in self.request.subprotocols:
            raise ValueError("the client did not offer this subprotocol")
        try:
            with trio.fail_after(self._write_deadline_s):
                await self._stream.send_all(self._switching(subprotocol))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise ConnectionLost(Closing(ABNORMAL, "client left in the handshake", clean=False)) from None
        self._connection = WebSocketConnection(
            self._stream,
            Side.SERVER,
            self.request.peer,
            leftover=self._parser.trailing_data[0],
            max_message_bytes=self._max_message_bytes,
            reassembly=self._reassembly,
            write_deadline_s=self._write_deadline_s,
        )
        return self._connection

    async def unless_gone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await work(), which the client's leaving cancels.

        Raises ClientGone, and whatever work() raises. For the time before the answer alone: it reads from the
        client's stream.
        """
        results: list[T] = []
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope)
            try:
                results.append(await work())
            except Exception as error:  # noqa: BLE001 - re-raised below, outside the nursery's group
                failures.append(error)
            nursery.cancel_scope.cancel()
        if failures:
            raise failures.pop()  # kept in this frame, it and its traceback would keep each other
        if not results:
            raise ClientGone
        return results[0]

    async def finish(self, code: int, reason: str) -> None:
        """Leave nothing open, whatever the handler left behind."""
        if self._connection is not None:
            await self._connection.close(code, reason)
        elif self._parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.respond(500, error_body(500, "internal_error", "The server failed to answer."))

    async def _next_piece(self) -> bytes | None:
        if self._parser.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._stream.send_all(self._parser.send(go_on))
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            self._parser.receive_data(bytes(await self._stream.receive_some(_READ_BYTES)))
        return bytes(event.data) if isinstance(event, h11.Data) else None

    def _switching(self, subprotocol: str | None) -> bytes:
        key = self.request.headers.get("sec-websocket-key") or ""
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", generate_accept_token(key.encode()).decode()),
        ]
        if subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", subprotocol))
        self._parser.next_event()  # the end of a request that has no body
        return self._parser.send(
            h11.InformationalResponse(status_code=101, headers=headers, reason="Switching Protocols")
        )

    async def _cancel_when_gone(self, scope: trio.CancelScope) -> None:
        early = 0
        while early < _EARLY_BYTES:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                scope.cancel()
                return
            # Frames sent before the 101: impolite, but they belong to the connection to come.
            self._parser.receive_data(bytes(data))
            early += len(data)
