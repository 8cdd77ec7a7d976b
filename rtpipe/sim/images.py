"""The size of a PNG or JPEG picture, read from its own header."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

_DATA_URI = re.compile(r"data:image/(?:png|jpe?g);base64,", re.IGNORECASE)
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Image(NamedTuple):
    kind: str
    width: int
    height: int


def read_image(data_uri: str) -> Image | None:
    """None for whatever is not a base64 data URI of a PNG or a JPEG that has a size."""
    head = _DATA_URI.match(data_uri)
    if head is None:
        return None
    try:
        data = base64.b64decode(data_uri[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        return None
    image = None
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        image = Image("PNG", int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    elif data.startswith(b"\xff\xd8"):
        image = _read_jpeg(data)
    return image if image and image.width and image.height else None


def _read_jpeg(data: bytes) -> Image | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte before the marker
            at += 1
        elif marker in _START_OF_FRAME:
            return Image("JPEG", int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7]))
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
