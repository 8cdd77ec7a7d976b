"""WebSocket frames (RFC 6455) read without I/O: bytes in, whole text payloads out.

This is the relay's inner loop, so it is our own: headers are read where they lie and a whole frame makes no
object but its payload.
"""

import codecs
from dataclasses import dataclass
from typing import Final

from rtpipe.transport.connection import WIRE_CODES
from rtpipe.transport.encoding import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    NO_STATUS,
    PING,
    PONG,
    WHOLE_TEXT,
    Bytes,
    Side,
    apply_mask,
)

FRAMES_AT_ONCE: Final = 256
PINGS_OWED: Final = 16
REASSEMBLY_BYTES: Final = 256 * 2**20
EMPTY_FRAGMENTS: Final = 1024

_new_decoder: Final = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why no further frame is read: the peer's close frame, or a breach that wants a close frame of ours."""

    code: int
    reason: str
    is_breach: bool


class _Breach(Exception):
    def __init__(self, code: int, reason: str) -> None:
        self.ending = Ending(code, reason, is_breach=True)


def _wrong_length() -> _Breach:
    return _Breach(1002, "a frame length of the wrong form")


class Reassembly:
    """What all the readers of a process together may keep of messages of which part has come."""

    def __init__(self, limit: int = REASSEMBLY_BYTES) -> None:
        self.limit = limit
        self.held = 0


class FrameReader:
    """Reads what a peer sends. After each feed(), the attributes tell what there is.

    At most `max_message_bytes` of one message are kept, over all its fragments. What `leftover` holds is read
    by the first feed().
    """

    def __init__(
        self,
        side: Side,
        max_message_bytes: int,
        leftover: bytes = b"",
        reassembly: Reassembly | None = None,
    ) -> None:
        self._reassembly = reassembly or Reassembly()
        self.payloads: list[bytes] = []
        """Whole messages, in order; to be taken away with take()."""
        self.pings: list[bytes] = []
        """What the last PINGS_OWED unanswered pings carried; whoever answers them empties it."""
        self.ponged = False
        self.ending: Ending | None = None
        self.more = bool(leftover)
        """There are bytes to read still, so feed(b"") is worth while."""
        self._masked = side is Side.SERVER
        self._limit = max_message_bytes
        self._rest = leftover  # before it is `more`, not even a header, or a control frame, is whole in it
        # The message in progress: one in fragments, or a frame of which part has come.
        self._open = False
        self._message = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = None
        self._empty = 0
        self._final = False
        self._left = 0
        self._mask = b""

    @property
    def in_frame(self) -> bool:
        """Part of a data frame has come and part has not."""
        return self._left > 0

    def take(self) -> list[bytes]:
        """The payloads there are."""
        payloads, self.payloads = self.payloads, []
        return payloads

    def feed(self, data: Bytes) -> None:
        """Read `data`, which may be reused afterwards. After the ending, everything is ignored.

        No more than FRAMES_AT_ONCE frames are read, lest thousands of tiny ones hold up everybody else.
        """
        if self.ending is not None:
            return
        if self._rest:
            data = self._rest + data
        try:
            at = self._walk(data)
        except _Breach as breach:
            self.ending = breach.ending
        if self.ending is not None:
            self.discard()
        else:
            self._rest = bytes(data[at:])

    def discard(self) -> None:
        """Keep nothing any more: the connection is at its end."""
        self._reassembly.held -= len(self._message)
        self.more, self._rest, self._message = False, b"", bytearray()

    def _walk(self, data: Bytes) -> int:
        """Read frames; returns where it stopped. Each turn of the loop begins at a frame's first byte."""
        end, masked, payloads = len(data), self._masked, self.payloads
        self.more = False
        at = self._take_part(data, 0) if self._left else 0
        for _ in range(FRAMES_AT_ONCE):
            if end - at < 2:
                return at
            first, second = data[at], data[at + 1]
            if (second > 0x7F) is not masked:
                raise _Breach(1002, "frames are masked by clients and by nobody else")
            size = second & 0x7F
            if first != WHOLE_TEXT or self._open:
                self._check_head(first, size)
            body = at + 2
            if size == 126:
                body += 2
                if body > end:
                    return at
                size = data[at + 2] << 8 | data[at + 3]
                if size < 126:
                    raise _wrong_length()
            elif size == 127:
                body += 8
                if body > end:
                    return at
                size = int.from_bytes(data[at + 2 : body], "big")
                if size <= 0xFFFF or size >> 63:
                    raise _wrong_length()
            if masked:
                body += 4
                if body > end:
                    return at
            stop = body + size
            if first == WHOLE_TEXT and stop <= end and size <= self._limit:
                piece = data[body:stop]
                payload = apply_mask(piece, bytes(data[body - 4 : body])) if masked else bytes(piece)
                if not payload.isascii():
                    _check_utf8(payload)
                payloads.append(payload)
                at = stop
            elif first & 0x08:
                if stop > end:
                    return at
                piece = data[body:stop]
                self._control(
                    first, apply_mask(piece, bytes(data[body - 4 : body])) if masked else bytes(piece)
                )
                if self.ending is not None:
                    return end
                at = stop
            else:
                self._begin(first, size, bytes(data[body - 4 : body]))
                at = self._take_part(data, body)
        self.more = at < end
        return at

    def _check_head(self, first: int, size: int) -> None:
        """Everything that a frame's first two bytes can have wrong. `size`: the seven bits there."""
        opcode = first & 0x0F
        if first & 0x70:
            raise _Breach(1002, "a reserved bit is set")
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise _Breach(1002, "a reserved opcode")
        if opcode >= CLOSE:
            if not first & FIN:
                raise _Breach(1002, "a control frame in fragments")
            if size > 125:
                raise _Breach(1002, "a control frame of more than 125 bytes")
        elif (opcode == CONTINUATION) is not self._open:
            raise _Breach(1002, "a fragment out of order")
        elif opcode == BINARY:
            raise _Breach(1003, "only text frames are understood")

    def _control(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if opcode == PING:
            self.pings.append(payload)
            del self.pings[:-PINGS_OWED]
        elif opcode == PONG:
            self.ponged = True
        else:
            self.ending = _read_close(payload)

    def _begin(self, first: int, size: int, mask: bytes) -> None:
        """A data frame that is a fragment, is not all there yet, or is too long."""
        self._empty += size == 0
        if len(self._message) + size > self._limit or self._empty > EMPTY_FRAGMENTS:
            raise _Breach(1009, f"a message may have {self._limit} bytes")
        self._open = True
        self._final = bool(first & FIN)
        self._left = size
        self._mask = mask

    def _take_part(self, data: Bytes, at: int) -> int:
        """Add to the message what has come of the frame in progress; returns where that ends in `data`."""
        stop = min(at + self._left, len(data))
        piece = data[at:stop]
        self._left -= len(piece)
        if self._masked:
            piece = apply_mask(piece, self._mask)
            turn = len(piece) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
        piece = bytes(piece)
        self._check_part(piece, last=self._final and not self._left)
        self._message += piece
        self._reassembly.held += len(piece)
        if self._reassembly.held > self._reassembly.limit:
            raise _Breach(1013, "too much is waiting for the rest of messages; try again later")
        if self._final and not self._left:
            self.payloads.append(bytes(self._message))
            self._reassembly.held -= len(self._message)
            self._open, self._empty, self._message, self._decoder = False, 0, bytearray(), None
        return stop

    def _check_part(self, piece: bytes, last: bool) -> None:
        """As early as a bad byte comes, the message fails, not at its end."""
        if self._decoder is None:
            if piece.isascii():
                return
            self._decoder = _new_decoder()
        try:
            self._decoder.decode(piece, last)
        except UnicodeDecodeError:
            raise _Breach(1007, "not UTF-8") from None


def _check_utf8(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise _Breach(1007, "not UTF-8") from None


def _read_close(payload: bytes) -> Ending:
    if not payload:
        return Ending(NO_STATUS, "", is_breach=False)
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in WIRE_CODES:
        raise _Breach(1002, "a close code that may not be sent")
    _check_utf8(payload[2:])
    return Ending(code, payload[2:].decode(), is_breach=False)
