"""WebSocket frames (RFC 6455) written without I/O: payloads in, frames out; and what both ways share."""

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, cast

try:
    from websockets.speedups import apply_mask as _xor  # in C, some thirty times as fast as any Python
except ImportError:  # an interpreter for which it could not be compiled
    from websockets.utils import apply_mask as _xor

WRITE_BYTES: Final = 256 * 2**10
"""The longest piece that encode() yields; a multiple of 4, so that the mask begins anew with each."""
NO_STATUS: Final = 1005
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN: Final = 0x80
WHOLE_TEXT: Final = FIN | TEXT

Bytes = bytes | memoryview
apply_mask = cast("Callable[[Bytes, bytes], bytes]", _xor)


class Side(Enum):
    """Which end of a WebSocket this is. Clients mask what they send, servers do not."""

    CLIENT = "client"
    SERVER = "server"


def encode(payloads: Sequence[bytes], side: Side) -> Iterable[Bytes]:
    """Text frames for `payloads`, to be written in order, in pieces of about WRITE_BYTES at most.

    A piece ends with a frame, unless that frame is longer than a piece. Raises UnicodeDecodeError for a
    payload that is not UTF-8, of which nothing comes out.
    """
    if len(payloads) == 1 and len(payloads[0]) <= WRITE_BYTES:
        return (_one(payloads[0], side),)  # by far the most frequent case
    return _many(payloads, side)


def _one(payload: bytes, side: Side) -> bytes:
    if not payload.isascii():
        payload.decode()
    if side is Side.SERVER:
        return _head(WHOLE_TEXT, len(payload), 0) + payload
    mask = os.urandom(4)
    return b"".join((_head(WHOLE_TEXT, len(payload), 0x80), mask, apply_mask(payload, mask)))


def _many(payloads: Sequence[bytes], side: Side) -> Iterator[Bytes]:
    masks = os.urandom(4 * len(payloads)) if side is Side.CLIENT else b""
    mask_bit = 0x80 if masks else 0
    parts: list[bytes] = []
    gathered = 0
    for number, payload in enumerate(payloads):
        if not payload.isascii():
            payload.decode()
        size = len(payload)
        mask = masks[4 * number : 4 * number + 4]
        parts.append(_head(WHOLE_TEXT, size, mask_bit) + mask)
        if size > WRITE_BYTES:
            yield b"".join(parts)
            yield from _pieces(payload, mask)
            parts, gathered = [], 0
            continue
        parts.append(apply_mask(payload, mask) if masks else payload)
        gathered += size
        if gathered >= WRITE_BYTES:
            yield b"".join(parts)
            parts, gathered = [], 0
    if parts:
        yield b"".join(parts)


def _pieces(payload: bytes, mask: bytes) -> Iterator[Bytes]:
    view = memoryview(payload)
    for start in range(0, len(payload), WRITE_BYTES):
        piece = view[start : start + WRITE_BYTES]
        yield apply_mask(piece, mask) if mask else piece


def _head(first: int, size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 2**16:
        return struct.pack("!BBH", first, mask_bit | 126, size)
    return struct.pack("!BBQ", first, mask_bit | 127, size)


def whole_frames(payloads: Sequence[bytes], side: Side, size: int) -> int:
    """How many of `payloads` are whole in the first `size` bytes of what encode() makes of them."""
    mask = 4 if side is Side.CLIENT else 0
    for count, payload in enumerate(payloads):
        size -= len(_head(WHOLE_TEXT, len(payload), 0)) + mask + len(payload)
        if size < 0:
            return count
    return len(payloads)


def ping_frame(side: Side) -> bytes:
    """A ping that carries nothing."""
    return _control_frame(PING, b"", side)


def pong_frame(payload: bytes, side: Side) -> bytes:
    """The answer to a ping that carried `payload`."""
    return _control_frame(PONG, payload, side)


def close_frame(code: int, reason: str, side: Side) -> bytes:
    """A close frame; NO_STATUS makes an empty one. The reason has 123 bytes at most."""
    payload = b"" if code == NO_STATUS else struct.pack("!H", code) + reason.encode()
    return _control_frame(CLOSE, payload, side)


def _control_frame(opcode: int, payload: bytes, side: Side) -> bytes:
    if side is Side.SERVER:
        return _head(FIN | opcode, len(payload), 0) + payload
    mask = os.urandom(4)
    return _head(FIN | opcode, len(payload), 0x80) + mask + apply_mask(payload, mask)
