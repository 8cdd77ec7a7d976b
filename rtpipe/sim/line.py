"""The wire under a session, on which every fault can be produced."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

import trio
import trio_websocket

CLOSE_SECONDS = 10
# A trickle of bytes comes in so many pieces a second.
_PIECES_PER_SECOND = 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Line(Protocol):
    """What a session talks through. After `drop`, `close` or the peer's leaving, `receive` returns None and
    the senders raise trio.BrokenResourceError. After `stall` nothing of it returns."""

    async def receive(self) -> str | bytes | None: ...

    async def send(self, text: str) -> None: ...

    async def send_frame(self, frame: bytes, /) -> None:
        """Send bytes as a frame of their own, whatever they are."""
        ...

    async def close(self, code: int, reason: str) -> None: ...

    async def drop(self, *, reset: bool) -> None:
        """Cut it without a close frame, and with a TCP reset instead of an end if `reset`."""
        ...

    def stall(self) -> None:
        """Read and write nothing more, and keep it open."""
        ...

    def slow(self, bytes_per_second: float) -> None:
        """Write no faster."""
        ...


class Wire(trio.abc.Stream):
    """A TCP stream that can stall and trickle. `first`: what was already read of it."""

    def __init__(self, stream: trio.SocketStream, first: bytes) -> None:
        self._stream = stream
        self._first = first
        self._sending = trio.Lock()  # frames of faults go out beside those of the WebSocket
        self.stalled = False
        self.bytes_per_second: float | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending:
            await self._if_stalled()
            if self.bytes_per_second is None:
                await self._stream.send_all(data)
                return
            size = max(1, int(self.bytes_per_second / _PIECES_PER_SECOND))
            for start in range(0, len(data), size):
                piece = data[start : start + size]
                await self._stream.send_all(piece)
                await trio.sleep(len(piece) / self.bytes_per_second)
                await self._if_stalled()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._first:
            first, self._first = self._first, b""
            return first
        data = await self._stream.receive_some(max_bytes)
        await self._if_stalled()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def drop(self, *, reset: bool) -> None:
        if reset:
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        await trio.aclose_forcefully(self._stream)

    async def _if_stalled(self) -> None:
        if self.stalled:
            # The point of a stall. It ends with the session, whose time is limited, or with the server.
            await trio.sleep_forever()


class WebSocketLine:
    """A Line over a real socket."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, wire: Wire) -> None:
        self._socket = socket
        self._wire = wire
        self._closed: trio.Event | None = None

    async def receive(self) -> str | bytes | None:
        try:
            message: str | bytes = await self._socket.get_message()
        except trio_websocket.ConnectionClosed:
            return None
        if self._wire.stalled:
            await trio.sleep_forever()  # as in Wire
        return message

    async def send(self, text: str) -> None:
        try:
            await self._socket.send_message(text)
        except trio_websocket.ConnectionClosed as closed:
            raise trio.BrokenResourceError from closed

    async def send_frame(self, frame: bytes) -> None:
        await self._wire.send_all(frame)

    async def close(self, code: int, reason: str) -> None:
        if self._closed is not None:
            # Whoever closed it needs the connection for the peer's answer, which is waited for in there.
            await self._closed.wait()
            return
        self._closed = trio.Event()
        try:
            with trio.move_on_after(CLOSE_SECONDS):
                await self._socket.aclose(code, reason)
        finally:
            self._closed.set()

    async def drop(self, *, reset: bool) -> None:
        await self._wire.drop(reset=reset)

    def stall(self) -> None:
        self._wire.stalled = True

    def slow(self, bytes_per_second: float) -> None:
        self._wire.bytes_per_second = bytes_per_second
