"""What a connection needs of a stream of bytes, the short way for plain sockets and the general one.

A socket is read into one buffer that all connections of a run share: between the reading and the walk through
the frames nothing else runs, so an idle connection needs no buffer of its own.
"""

import os
import socket
import sys
import termios
from contextlib import suppress
from fcntl import ioctl
from typing import Final, Protocol

import trio

from rtpipe.transport.tls import TlsStream

READ_BYTES: Final = 128 * 2**10
FULL_FLOW_BYTES: Final = READ_BYTES // 4
"""A read of so much is followed by another one without waiting in between."""
UNPAUSED_BYTES: Final = 512 * 2**10
"""And so on up to this much, so that a peer in full flow holds up nobody else."""
GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

_shared: Final[trio.lowlevel.RunVar[memoryview]] = trio.lowlevel.RunVar("rtpipe receive buffer")


class Wire(Protocol):
    """One task reads and one writes, both at once if they like. All methods raise one of GONE at the end."""

    @property
    def written(self) -> int:
        """Bytes that have been taken so far. Where nobody can tell what became of a write that broke, TLS
        counts it as taken, any other stream does not."""
        ...

    async def read(self) -> bytes | memoryview | None:
        """What has come, to be used before the next await; empty at the end, None after interrupt().

        Cancelling it loses nothing.
        """
        ...

    def interrupt(self) -> None:
        """Have the task that waits in read() return None. Nothing happens if there is none."""
        ...

    def write_now(self, data: bytes | memoryview) -> int:
        """Write what can leave without waiting; returns how many bytes that was, 0 if it cannot tell."""
        ...

    async def write(self, data: bytes | memoryview) -> None:
        """Write all of it."""
        ...

    def unacknowledged(self) -> int:
        """How many of these bytes the peer's kernel has not acknowledged; 0 where nobody can tell."""
        ...


def wire_over(stream: trio.abc.Stream) -> Wire:
    """The best there is for this kind of stream."""
    return SocketWire(stream.socket) if isinstance(stream, trio.SocketStream) else StreamWire(stream)


class SocketWire:
    """A plain socket. The descriptor is asked for each time: once closed, its number is somebody else's."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self.written = 0
        self._socket = socket
        self._buffer = _shared_buffer()
        self._unpaused = 0

    async def read(self) -> memoryview | None:
        if 0 < self._unpaused < UNPAUSED_BYTES:
            # In full flow: what has come meanwhile lies there already.
            with suppress(BlockingIOError):
                return self._read_now()
        self._unpaused = 0
        while True:
            try:
                await trio.lowlevel.wait_readable(self._fileno())
                return self._read_now()
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                self._fileno()
                return None  # it was interrupt()

    def _read_now(self) -> memoryview:
        """Raises BlockingIOError when nothing has come."""
        try:
            size = os.readv(self._fileno(), (self._buffer,))
        except BlockingIOError:
            raise
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self._unpaused = self._unpaused + size if size >= FULL_FLOW_BYTES else 0
        return self._buffer[:size]

    def interrupt(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)

    def write_now(self, data: bytes | memoryview) -> int:
        try:
            size = os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self.written += size
        return size

    async def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            self._fileno()
            with suppress(trio.ClosedResourceError):  # it may be interrupt(), which is not meant for writers
                await trio.lowlevel.wait_writable(self._socket)
            rest = rest[self.write_now(rest) :]

    def unacknowledged(self) -> int:
        return _unacknowledged(self._socket)

    def _fileno(self) -> int:
        """Raises ClosedResourceError."""
        fileno = self._socket.fileno()
        if fileno < 0:
            raise trio.ClosedResourceError
        return fileno


class StreamWire:
    """Any other stream, such as TLS or one in memory."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._written = 0
        self._stream = stream
        self._waiting = trio.CancelScope()

    async def read(self) -> bytes | memoryview | None:
        with trio.CancelScope() as self._waiting:
            return bytes(await self._stream.receive_some(READ_BYTES))
        return None

    def interrupt(self) -> None:
        self._waiting.cancel()

    def write_now(self, data: bytes | memoryview) -> int:  # noqa: ARG002
        return 0

    async def write(self, data: bytes | memoryview) -> None:
        await self._stream.send_all(data)
        self._written += len(data)

    @property
    def written(self) -> int:
        return self._stream.sent if isinstance(self._stream, TlsStream) else self._written

    def unacknowledged(self) -> int:
        """Of TLS the bytes on the wire count, which are a few more than what they carry."""
        if not isinstance(self._stream, TlsStream):
            return 0
        below = self._stream.transport
        on_wire = _unacknowledged(below.socket) if isinstance(below, trio.SocketStream) else 0
        return on_wire + self._stream.unsure


def _unacknowledged(sock: trio.socket.SocketType) -> int:
    """What Linux calls SIOCOUTQ (tcp(7)); it can be asked for after a reset too. Of a Unix socket it counts
    something else."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.fileno() < 0:
        return 0
    answer = bytearray(4)
    try:
        ioctl(sock.fileno(), termios.TIOCOUTQ, answer)
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


def _shared_buffer() -> memoryview:
    try:
        return _shared.get()
    except LookupError:
        _shared.set(memoryview(bytearray(READ_BYTES)))
        return _shared.get()
