"""A Connection over a WebSocket whose handshake is done, on either side of it.

`frames.py` knows the frames, `wire.py` the bytes; this module knows who may read, who may write, and how it
all ends. Whoever is in receive_many() reads, and nobody else. Once a second the keeper looks whether somebody
does: where the application is busy elsewhere, a little is read ahead for it, so that pings are answered and
the peer's end is noticed all the same.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any, Final

import trio

from rtpipe.transport.connection import (
    ABNORMAL,
    WRITE_DEADLINE_S,
    Closing,
    ConnectionLost,
    Peer,
    wire_reason,
)
from rtpipe.transport.encoding import Side, close_frame, encode, ping_frame, pong_frame, whole_frames
from rtpipe.transport.frames import Ending, FrameReader, Reassembly
from rtpipe.transport.keeper import Heartbeat, keep, let_go
from rtpipe.transport.wire import GONE, wire_over

MAX_MESSAGE_BYTES: Final = 16 * 2**20
KEEPALIVE_S: Final = 19.0  # looked at once a second: a peer that is gone is noticed within 40 s
CLOSE_DEADLINE_S: Final = 3.0
LAST_WORDS_S: Final = 1.0
READ_AHEAD_BYTES: Final = 64 * 2**10
READ_AHEAD_PAYLOADS: Final = 512
# Writes that never wait let nobody else run, so every so many bytes there is a pause.
_PAUSE_BYTES: Final = 256 * 2**10

logger = logging.getLogger("rtpipe.transport")


class WebSocketConnection:
    """One WebSocket, as a Connection. `leftover` is what the handshake had already read of the frames;
    `reassembly` is shared by all that are to be bounded together.

    A ping leaves every `keepalive_s`; a peer whose pong has not come when the next one is due is given up.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        side: Side,
        peer: Peer,
        *,
        leftover: bytes = b"",
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        write_deadline_s: float = WRITE_DEADLINE_S,
        keepalive_s: float = KEEPALIVE_S,
        reassembly: Reassembly | None = None,
    ) -> None:
        self.peer = peer
        self._stream = stream
        self._side = side
        self._wire = wire_over(stream)
        self._frames = FrameReader(side, max_message_bytes, leftover, reassembly)
        self._write_deadline_s = write_deadline_s
        self._reading = False
        self._next_to_read = trio.lowlevel.ParkingLot()
        self._writing = False
        self._next_to_write = trio.lowlevel.ParkingLot()
        self._unpaused = 0
        self._closing: Closing | None = None
        self._closed_by_us = False
        self._released = trio.Event()
        self._payloads_from: int | None = None
        self._unacknowledged: int | None = None
        self._heartbeat = Heartbeat(keepalive_s, trio.current_time())
        self._has_read = False
        self._answering = False
        keep(self)

    async def receive_many(self) -> list[bytes]:
        frames = self._frames
        if frames.payloads:
            await trio.lowlevel.checkpoint()
        if self._reading:
            self._wire.interrupt()
            await self._turn_to_read()
        self._reading = True
        try:
            while True:
                if self._closed_by_us or (self._closing is not None and not frames.payloads):
                    raise self._lost()
                if frames.payloads:
                    return frames.take()
                await self._read()
        finally:
            self._done_reading()

    async def receive(self) -> bytes:
        payloads = await self.receive_many()
        self._frames.payloads[:0] = payloads[1:]
        return payloads[0]

    def send_many(self, payloads: Sequence[bytes]) -> Coroutine[Any, Any, None]:
        return self._write(encode(payloads, self._side), payloads)

    def send(self, payload: bytes) -> Coroutine[Any, Any, None]:
        return self._write(encode((payload,), self._side), (payload,))

    def unacknowledged(self) -> int:
        return self._wire.unacknowledged() if self._unacknowledged is None else self._unacknowledged

    def abort(self, reason: str) -> None:
        if self._closing is None:
            self._closing = Closing(ABNORMAL, reason, clean=False, ours=True)
            self._wire.interrupt()
            self._in_background(self._release)

    async def close(self, code: int, reason: str) -> None:
        reason = wire_reason(code, reason)
        if self._closing is None:
            self._closing = Closing(code, reason, clean=True, ours=True)
            self._closed_by_us = True
            self._wire.interrupt()  # the waiting receiver leaves the stream to _drain
            await self._end(close_frame(code, reason, self._side), self._drain)
        with trio.CancelScope(shield=True):  # bounded: whoever set _closing releases within CLOSE_DEADLINE_S
            await self._released.wait()

    def tick(self, now: float) -> None:
        """Once a second, from the keeper."""
        if self._closing is not None:
            return
        is_read = self._reading
        if not is_read and self._has_room():
            self._in_background(self._read_ahead)
        amid_frame = self._has_read and self._frames.in_frame
        self._heartbeat.tick(now, ponged=self._frames.ponged, could_answer=is_read and not amid_frame)
        self._frames.ponged = self._has_read = False
        if self._heartbeat.has_stopped(now):
            self._begin_end(
                Closing(1011, self._heartbeat.reason, clean=False, ours=True), self._drain_to_the_end
            )
        elif self._heartbeat.owes_ping:
            self._answer()

    # Reading: only one task at a time, and whoever waits in receive_many() goes first.

    async def _turn_to_read(self) -> None:
        while self._reading:
            await self._next_to_read.park()

    @asynccontextmanager
    async def _sole_reader(self) -> AsyncIterator[None]:
        await self._turn_to_read()
        self._reading = True
        try:
            yield
        finally:
            self._done_reading()

    def _done_reading(self) -> None:
        self._reading = False
        if self._next_to_read:
            self._next_to_read.unpark()

    async def _read_ahead(self) -> None:
        """Read for an application that does not, as much as there is room for or until it does."""
        async with self._sole_reader():
            while self._closing is None and not self._next_to_read and self._has_room():
                await self._read()

    def _has_room(self) -> bool:
        payloads = self._frames.payloads
        return len(payloads) < READ_AHEAD_PAYLOADS and sum(map(len, payloads)) < READ_AHEAD_BYTES

    async def _read(self) -> None:
        """One step of reading, and what follows from it but for payloads."""
        frames = self._frames
        try:
            if frames.more:
                await trio.lowlevel.checkpoint()
                frames.feed(b"")
            elif data := await self._wire.read():
                self._has_read = True
                frames.feed(data)
            elif data is not None:
                await self._lose("stream ended without a close frame")
        except GONE:
            await self._lose("connection reset")
        if self._closing is None:
            if frames.pings:
                self._answer()
            if frames.ending is not None:
                self._obey(frames.ending)

    def _obey(self, ending: Ending) -> None:
        """The peer has said goodbye, or done what ends the connection."""
        drain = self._drain_to_the_end if ending.is_breach else None
        reason = wire_reason(ending.code, ending.reason) if ending.is_breach else ending.reason
        self._begin_end(Closing(ending.code, reason, clean=True, ours=ending.is_breach), drain)

    # Writing.

    async def _write(
        self,
        pieces: Iterable[bytes | memoryview],
        payloads: Sequence[bytes] = (),
        *,
        farewell: bool = False,
    ) -> None:
        """Write whole frames, those of `payloads`, and what is owed before them. Raises ConnectionLost."""
        while self._writing:
            await self._next_to_write.park()
        self._writing = True
        self._payloads_from = None
        taken: int | None = None
        try:
            if self._closing is not None and not farewell:
                raise self._lost()
            # Once something has left, all of it leaves or the connection breaks: a close waits its turn.
            if self._frames.pings or self._heartbeat.owes_ping:
                pieces = chain(self._owed(), pieces)
            else:
                self._payloads_from = self._wire.written
            has_left = False
            for piece in pieces:
                written = self._wire.write_now(piece)
                self._unpaused += written
                if written < len(piece):
                    if not (has_left or written):
                        await trio.lowlevel.checkpoint_if_cancelled()  # it costs nothing yet
                    await self._put_slowly(memoryview(piece)[written:])
                elif self._unpaused >= _PAUSE_BYTES:
                    self._unpaused = 0
                    await trio.lowlevel.cancel_shielded_checkpoint()
                has_left = True
        except ConnectionLost as loss:
            loss.taken = self._taken(payloads)
            raise
        except GONE:
            taken = self._taken(payloads)
        finally:
            self._writing = False
            if self._next_to_write:
                self._next_to_write.unpark()
        if taken is not None:
            if not farewell:
                await self._await_last_words()
            raise self._lost(taken)

    def _taken(self, payloads: Sequence[bytes]) -> int:
        """How many of these left whole in the write that broke."""
        if self._payloads_from is None:
            return 0
        return whole_frames(payloads, self._side, self._wire.written - self._payloads_from)

    async def _put_slowly(self, rest: memoryview) -> None:
        """The deadline is for each piece: a large frame may take long as long as its pieces leave."""
        self._unpaused = 0
        try:
            with trio.fail_after(self._write_deadline_s):
                await self._wire.write(rest)
        except trio.TooSlowError:
            await self._lose(f"nothing read within the write deadline of {self._write_deadline_s:g} s")
            raise self._lost() from None
        except trio.Cancelled:
            await self._lose("a send was cancelled in mid frame")
            raise

    async def _await_last_words(self) -> None:
        """The peer has gone, but its close frame may lie unread: reading finds it at once."""
        if self._closing is None:
            if not self._reading:
                self._in_background(self._read_ahead)
            with trio.move_on_after(LAST_WORDS_S):
                await self._released.wait()
            await self._lose("connection reset")

    # Pings and pongs. However many are owed, one task at a time waits for its turn to write them.

    def _answer(self) -> None:
        if not self._answering:
            self._answering = True
            self._in_background(self._write_owed)

    async def _write_owed(self) -> None:
        try:
            while self._frames.pings or self._heartbeat.owes_ping:
                await self._write(())
        except ConnectionLost:
            pass
        finally:
            self._answering = False

    def _owed(self) -> Iterator[bytes]:
        """What is owed at the moment of writing: by then, later pings may have taken the place of earlier."""
        if self._frames.pings:
            pings, self._frames.pings = self._frames.pings, []
            yield b"".join([pong_frame(payload, self._side) for payload in pings])
        if self._heartbeat.owes_ping:
            self._heartbeat.asked(trio.current_time())
            yield ping_frame(self._side)
        self._payloads_from = self._wire.written

    # Ending. Whoever sets _closing sees to it that the stream is released.

    def _begin_end(self, closing: Closing, drain: Callable[[], Awaitable[None]] | None) -> None:
        """Of what we find while reading or waiting, so nobody waits for its end."""
        self._closing = closing
        self._wire.interrupt()
        self._in_background(self._end, close_frame(closing.code, closing.reason, self._side), drain)

    async def _end(self, farewell: bytes, drain: Callable[[], Awaitable[None]] | None) -> None:
        """Send our close frame, then drain: closing a socket over unread bytes resets it, and a reset may
        overtake the close frame."""
        try:
            with (
                trio.move_on_after(CLOSE_DEADLINE_S, shield=True),
                suppress(ConnectionLost, *GONE),
            ):
                await self._write([farewell], farewell=True)
                if drain is not None:
                    await drain()
        finally:
            await self._release()

    async def _drain(self) -> None:
        """Discard what the peer still sends, up to its close frame."""
        async with self._sole_reader():
            while self._frames.ending is None and not self._released.is_set():
                await self._read()
                self._frames.take()

    async def _drain_to_the_end(self) -> None:
        """Discard bytes up to the end of the stream, which a half-close asks the peer for."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        async with self._sole_reader():
            while (data := await self._wire.read()) is None or data:
                pass

    async def _lose(self, reason: str) -> None:
        self._closing = self._closing or Closing(ABNORMAL, reason, clean=False)
        await self._release()

    async def _release(self) -> None:
        let_go(self)
        if self._unacknowledged is None:
            self._unacknowledged = self._wire.unacknowledged()
        self._frames.discard()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
        self._released.set()

    def _lost(self, taken: int = 0) -> ConnectionLost:
        return ConnectionLost(self._closing or Closing(ABNORMAL, "connection lost", clean=False), taken)

    def _in_background(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        trio.lowlevel.spawn_system_task(self._guard, work, arguments)

    async def _guard(self, work: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> None:
        """A fault of ours costs this connection alone: in a system task it would end the process."""
        try:
            await work(*arguments)
        except Exception:
            logger.exception("%s: the connection failed", self.peer.address)
            await self._lose("internal error")
