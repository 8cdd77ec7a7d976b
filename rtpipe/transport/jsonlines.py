"""JSON lines: one JSON object a line, each way, over any byte stream. A Connection for programs without
WebSockets; `socat` is a client.

What the lines mean is said elsewhere; here are lines, their limits, and how such a connection ends.
"""

import select
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import trio

from rtpipe.transport.connection import (
    ABNORMAL,
    WIRE_CODES,
    WRITE_DEADLINE_S,
    Closing,
    ConnectionLost,
    Peer,
    wire_reason,
)
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.websocket import MAX_MESSAGE_BYTES
from rtpipe.transport.wire import GONE, wire_over

CLOSED: Final = "rtpipe.closed"
_CLOSED_MARK: Final = CLOSED.encode()
_READ_BYTES: Final = 64 * 2**10
_CLOSE_DEADLINE_S: Final = 2.0
_TOO_LONG: Final = Closing(1009, "a line is longer than the limit", clean=True)
_TOO_MUCH: Final = Closing(1013, "too much is waiting for the rest of messages; try again later", clean=True)


class _Closed(msgspec.Struct, frozen=True, tag_field="type", tag=CLOSED):
    """The peer says that it ends the connection, as we would."""

    code: int = 1000
    reason: str = ""


class JsonLines:
    """One end of a JSON-lines connection; a Connection, and before that a reader of its first line.

    Whoever made it calls discard() in the end.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        peer: Peer,
        *,
        leftover: bytes = b"",
        max_line_bytes: int = MAX_MESSAGE_BYTES,
        write_deadline_s: float = WRITE_DEADLINE_S,
        reassembly: Reassembly | None = None,
    ) -> None:
        self.peer = peer
        self.at_end_of_input: Callable[[], Awaitable[None]] | None = None
        """Awaited when the peer has said all it will say, before the connection counts as closed."""
        self._stream = stream
        self._wire = wire_over(stream)
        self._reassembly = reassembly or Reassembly()
        self._buffer = bytearray()
        self._searched = 0
        self._max_line_bytes = max_line_bytes
        self._write_deadline_s = write_deadline_s
        self._writing = trio.Lock()
        self._closing: Closing | None = None
        self._still_listens = False
        self._keep(leftover)

    async def receive(self) -> bytes:
        """The next line that is not blank, without its end. Raises ConnectionLost.

        The end of the peer's input is a close 1000, unless it has closed its socket: then the connection is
        lost. A last line like ours ends it too, with the code that it names. A line over the limit is a close
        1009, too much of unfinished lines and messages in all a close 1013.
        """
        while True:
            self._check()
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                self._forget(end + 1)
                if _CLOSED_MARK in line:
                    self._heed(line)
                if line.strip():
                    return line
                continue
            self._searched = len(self._buffer)
            if self._searched > self._max_line_bytes:
                await self.close(_TOO_LONG.code, _TOO_LONG.reason)
            elif self._reassembly.held > self._reassembly.limit:
                await self.close(_TOO_MUCH.code, _TOO_MUCH.reason)
            else:
                await self._read()

    async def receive_many(self) -> list[bytes]:
        """As `receive`; one at a time is fast enough here."""
        return [await self.receive()]

    async def send(self, payload: bytes) -> None:
        """Send one line. A line break in the payload can only be white space there, and becomes a space."""
        await self.send_many([payload])

    async def send_many(self, payloads: Sequence[bytes]) -> None:
        """Send lines with one write. Raises ConnectionLost, also when they do not leave in time."""
        lines = b"".join(_one_line(payload) + b"\n" for payload in payloads)
        async with self._writing:
            self._check()
            whole, before = False, self._wire.written
            try:
                with trio.fail_after(self._write_deadline_s):
                    await self._wire.write(lines)
                whole = True
            except trio.TooSlowError:
                reason = f"nothing read within the write deadline of {self._write_deadline_s:g} s"
                raise self._lose(reason, lines.count(b"\n", 0, self._wire.written - before)) from None
            except GONE:
                left = lines.count(b"\n", 0, self._wire.written - before)
                raise self._lose("connection lost", left) from None
            finally:
                if not whole and self._closing is None:  # cancelled: half a line may stand there
                    self._lose("a send was cancelled in mid line")

    def unacknowledged(self) -> int:
        """Over a Unix socket what left has arrived."""
        return 0

    def abort(self, reason: str) -> None:
        """As a Connection."""
        self._lose(reason)
        trio.lowlevel.spawn_system_task(trio.aclose_forcefully, self._stream)

    async def close(self, code: int, reason: str) -> None:
        """Tell the peer code and reason in a last line and close. Bounded, shielded; twice is harmless."""
        last = {"type": CLOSED, "code": code, "reason": wire_reason(code, reason)}
        with trio.move_on_after(_CLOSE_DEADLINE_S, shield=True), suppress(ConnectionLost):
            if self._still_listens:
                self._closing = None  # the peer says no more, and still listens
                self._still_listens = False
            await self.send(msgspec.json.encode(last))
        self._closing = self._closing or Closing(code, reason, clean=True, ours=True)
        await trio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lose("connection lost") from None
        if data:
            self._keep(data)
            return
        if self._buffer.strip():  # the last line, without an end
            self._keep(b"\n")
            return
        if self._has_hung_up():
            raise self._lose("the peer has closed its socket")
        if self.at_end_of_input is not None:
            await self.at_end_of_input()
        if self._closing is None:
            self._closing = Closing(1000, "", clean=True)
            self._still_listens = True

    def _heed(self, line: bytes) -> None:
        """Raises ConnectionLost if this is the peer's last line."""
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = msgspec.json.decode(line, type=_Closed)
            code = said.code if said.code in WIRE_CODES else 1000
            self._closing = self._closing or Closing(code, wire_reason(code, said.reason), clean=True)
            self._still_listens = True
            raise ConnectionLost(self._closing)

    def _has_hung_up(self) -> bool:
        """Whether the peer does not listen any more either, as when its process has ended."""
        if not isinstance(self._stream, trio.SocketStream):
            return False
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), 0)
        return any(state & select.POLLHUP for _, state in poll.poll(0))

    def discard(self) -> None:
        """Keep nothing any more: nobody is going to receive it."""
        self._forget(len(self._buffer))

    def _keep(self, data: bytes | bytearray) -> None:
        self._buffer += data
        self._reassembly.held += len(data)

    def _forget(self, size: int) -> None:
        del self._buffer[:size]
        self._reassembly.held -= size
        self._searched = 0

    def _check(self) -> None:
        if self._closing is not None:
            raise ConnectionLost(self._closing)

    def _lose(self, reason: str, taken: int = 0) -> ConnectionLost:
        self._closing = self._closing or Closing(ABNORMAL, reason, clean=False)
        return ConnectionLost(self._closing, taken)


def _one_line(payload: bytes) -> bytes:
    if b"\n" in payload or b"\r" in payload:
        return payload.replace(b"\r", b" ").replace(b"\n", b" ")
    return payload
