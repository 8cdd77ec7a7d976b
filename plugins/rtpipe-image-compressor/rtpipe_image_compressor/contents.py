"""Where images stand in events."""

import base64
import binascii
import re
from collections.abc import Iterator

from rtpipe import Json
from rtpipe.protocol import events
from rtpipe_image_compressor.pictures import ACCEPTED
from rtpipe_image_compressor.refusal import BadImage

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def images_in(event: Json) -> Iterator[Json]:
    """The `input_image` parts of an item, or of the input of a `response.create`."""
    given = (events.response_of(event) or {}).get("input")
    items = [events.item_of(event), *(given if isinstance(given, list) else ())]
    for item in items:
        content = item.get("content") if isinstance(item, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "input_image":
                yield part


def urls_in(event: Json) -> list[str]:
    """The URLs of the images in an event."""
    return [part["image_url"] for part in images_in(event) if isinstance(part.get("image_url"), str)]


def head_of(url: str) -> int | None:
    """Where the base64 text of a data URI begins; None for every other URL."""
    head = _DATA_URI.match(url)
    return None if head is None else head.end()


def check_size(byte_count: int, max_bytes: int) -> None:
    """Raises ``BadImage`` for too many."""
    if byte_count > max_bytes:
        message = f"The image has more than {max_bytes} bytes: send a smaller one."
        raise BadImage("image_too_large", message)


def decoded(url: str, begin: int) -> bytes:
    """The bytes of a data URI. Raises ``BadImage``."""
    try:
        return base64.b64decode(url[begin:], validate=True)
    except (binascii.Error, ValueError):
        raise not_an_image() from None


def not_an_image() -> BadImage:
    """For an `image_url` that holds none."""
    message = f"The image_url holds no image: send a {ACCEPTED} as data:image/…;base64,…"
    return BadImage("invalid_image_url", message)
