"""Takes what is no picture out of a PNG or JPEG file, without touching the picture.

For files that Pillow has decoded to the end: nothing here judges whether they are sound.
"""

import struct

_PNG_HEAD = 8
_PICTURE_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

_EOI, _SOS, _COM, _APP0, _APP14, _APP15 = 0xD9, 0xDA, 0xFE, 0xE0, 0xEE, 0xEF
_JFIF_BYTES = 16
"""The length of an APP0 segment without a thumbnail in it."""


def png(data: bytes) -> bytes:
    """Without texts, times, profiles, further frames, and whatever follows the end."""
    kept, at = bytearray(data[:_PNG_HEAD]), _PNG_HEAD
    while at + 12 <= len(data):
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind in _PICTURE_CHUNKS:
            kept += data[at:end]
        if kind == b"IEND":
            break
        at = end
    return bytes(kept)


def jpeg(data: bytes) -> bytes:
    """Without EXIF, profiles, comments, thumbnails, and whatever follows the end."""
    kept, at = bytearray(data[:2]), 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # garbage and fill bytes, which decoders skip
            at += 1
            continue
        if marker == _EOI:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == _SOS:
            end = _end_of_scan(data, end)
        if not _is_metadata(marker, end - at - 2):
            kept += data[at:end]
        at = end
    return bytes(kept) + b"\xff\xd9"


def _is_metadata(marker: int, length: int) -> bool:
    if marker == _APP0:
        return length != _JFIF_BYTES
    # APP14 says how the colours are to be read.
    return marker == _COM or (_APP0 < marker <= _APP15 and marker != _APP14)


def _end_of_scan(data: bytes, at: int) -> int:
    """Where the marker behind the entropy-coded data at *at* stands."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        following = data[at + 1]
        if following != 0 and not 0xD0 <= following <= 0xD7 and following != 0xFF:
            return at
        at += 1 if following == 0xFF else 2
    return len(data)
