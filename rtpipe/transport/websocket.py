"""A Connection over a WebSocket whose handshake is done, on either side of it.

wsproto knows the frames; this module knows who may read, who may write, and how it all ends. There is no task
behind a connection: pings are answered and the peer's close is noticed by whoever is in receive().
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio
import wsproto.events as frames
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionState, ConnectionType

from rtpipe.transport.connection import (
    ABNORMAL,
    WRITE_DEADLINE_S,
    Closing,
    ConnectionLost,
    Peer,
    wire_reason,
)

MAX_MESSAGE_BYTES: Final = 16 * 2**20
CLOSE_DEADLINE_S: Final = 3.0
LAST_WORDS_S: Final = 1.0
READ_BYTES: Final = 64 * 2**10
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class WebSocketConnection:
    """One WebSocket, as a Connection. `leftover` is what the handshake had already read of the frames."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        side: ConnectionType,
        peer: Peer,
        *,
        leftover: bytes = b"",
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        write_deadline_s: float = WRITE_DEADLINE_S,
    ) -> None:
        self.peer = peer
        self._stream = stream
        self._framing = Framing(side, trailing_data=leftover)
        self._max_message_bytes = max_message_bytes
        self._write_deadline_s = write_deadline_s
        self._message = bytearray()
        self._read_lock = trio.Lock()
        self._write_lock = trio.Lock()
        self._wait_for_bytes = trio.CancelScope()
        self._closing: Closing | None = None
        self._released = trio.Event()

    async def receive(self) -> bytes:
        async with self._read_lock:
            while self._closing is None:
                event = next(self._framing.events(), None)
                if event is None:
                    await self._read()
                    continue
                payload = await self._handle(event)
                if payload is not None:
                    return payload
        raise self._lost()

    async def send(self, payload: bytes) -> None:
        try:
            await self._write(frames.TextMessage(data=payload.decode()))
        except _GONE:
            await self._await_last_words()
            raise self._lost() from None

    async def close(self, code: int, reason: str) -> None:
        reason = wire_reason(code, reason)
        if self._closing is None:
            self._closing = Closing(code, reason, clean=True)
            self._wait_for_bytes.cancel()  # the waiting receiver leaves the stream to _drain
            await self._end(frames.CloseConnection(code, reason), self._drain)
        with trio.CancelScope(shield=True):  # bounded: whoever set _closing releases within CLOSE_DEADLINE_S
            await self._released.wait()

    # Reading: the caller holds the read lock.

    async def _read(self) -> None:
        try:
            with trio.CancelScope() as self._wait_for_bytes:
                data = await self._stream.receive_some(READ_BYTES)
        except _GONE:
            await self._lose("connection reset")
            return
        if self._wait_for_bytes.cancelled_caught:
            return
        if not data:
            await self._lose("stream ended without a close frame")
        else:
            self._framing.receive_data(bytes(data))

    async def _handle(self, event: frames.Event) -> bytes | None:
        match event:
            case frames.TextMessage():
                return await self._collect(event)
            case frames.BytesMessage():
                await self._fail(1003, "only text frames are understood")
            case frames.Ping():
                with suppress(ConnectionLost, *_GONE):
                    await self._write(event.response())
            case frames.CloseConnection() if self._framing.state is ConnectionState.REMOTE_CLOSING:
                self._closing = Closing(int(event.code), event.reason or "", clean=True)
                await self._end(event.response())
            case frames.CloseConnection():  # wsproto's way of saying that the peer broke the protocol
                await self._fail(int(event.code), event.reason or "protocol error", self._drain_unparsed)
        return None

    async def _collect(self, piece: frames.TextMessage) -> bytes | None:
        self._message += piece.data.encode()
        if len(self._message) > self._max_message_bytes:
            self._message = bytearray()
            await self._fail(1009, f"a message may have {self._max_message_bytes} bytes")
            return None
        if not piece.message_finished:
            return None
        payload, self._message = bytes(self._message), bytearray()
        return payload

    # Writing.

    async def _write(self, event: frames.Event) -> None:
        """Raises ConnectionLost, or trio's BrokenResourceError or ClosedResourceError."""
        async with self._write_lock:
            is_close = isinstance(event, frames.CloseConnection)
            if self._released.is_set() or (self._closing is not None and not is_close):
                raise self._lost()
            await trio.lowlevel.checkpoint_if_cancelled()  # the last moment at which cancelling costs nothing
            try:
                with trio.fail_after(self._write_deadline_s):
                    await self._stream.send_all(self._framing.send(event))
            except trio.TooSlowError:
                await self._lose(f"nothing read within the write deadline of {self._write_deadline_s:g} s")
                raise self._lost() from None
            except trio.Cancelled:
                await self._lose("a send was cancelled in mid frame")
                raise

    async def _await_last_words(self) -> None:
        """The peer has gone, but its close frame may lie unread: then whoever receives finds it at once."""
        if self._closing is None:
            with trio.move_on_after(LAST_WORDS_S):
                await self._released.wait()
            await self._lose("connection reset")

    # Ending. Whoever sets _closing sees to it that the stream is released.

    async def _fail(self, code: int, reason: str, drain: Callable[[], Awaitable[None]] | None = None) -> None:
        reason = wire_reason(code, reason)
        self._closing = Closing(code, reason, clean=True)
        await self._end(frames.CloseConnection(code, reason), drain or self._drain_parsed)

    async def _end(
        self, farewell: frames.CloseConnection, drain: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Send our close frame, then drain: closing a socket over unread bytes resets it, and a reset may
        overtake the close frame."""
        try:
            with (
                trio.move_on_after(CLOSE_DEADLINE_S, shield=True),
                suppress(ConnectionLost, *_GONE),
            ):
                await self._write(farewell)
                if drain is not None:
                    await drain()
        finally:
            await self._release()

    async def _drain(self) -> None:
        async with self._read_lock:
            await self._drain_parsed()

    async def _drain_parsed(self) -> None:
        """Discard what the peer still sends, up to its close frame."""
        while not any(isinstance(event, frames.CloseConnection) for event in self._framing.events()):
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                return
            self._framing.receive_data(bytes(data))

    async def _drain_unparsed(self) -> None:
        """Discard bytes up to the end of the stream, which a half-close asks the peer for."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        while await self._stream.receive_some(READ_BYTES):
            pass

    async def _lose(self, reason: str) -> None:
        self._closing = self._closing or Closing(ABNORMAL, reason, clean=False)
        await self._release()

    async def _release(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
        self._released.set()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(self._closing or Closing(ABNORMAL, "connection lost", clean=False))
