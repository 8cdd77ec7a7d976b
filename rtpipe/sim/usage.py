"""Tokens, as the service reports them in response.done.

User audio is 1 token per 100 ms and assistant audio 1 per 50 ms (OpenAI's documentation). Text is about 1 per
4 characters. The image formula of realtime models is not published: here an image is 85 tokens, and 170 more
for each tile of 512 x 512 pixels unless its detail is "low".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from .conversation import Item

CACHE_STEP = 64
_ASSISTANT_MS_PER_TOKEN = 50
_USER_MS_PER_TOKEN = 100


class Tokens(NamedTuple):
    text: int = 0
    audio: int = 0
    image: int = 0

    def plus(self, other: Tokens) -> Tokens:
        return Tokens(*map(sum, zip(self, other, strict=True)))


def total(tokens: Iterable[Tokens]) -> Tokens:
    return functools.reduce(Tokens.plus, tokens, Tokens())


def text_tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


def item_tokens(item: Item) -> Tokens:
    text = sum(map(text_tokens, item.read_texts()))
    parts = item.wire.get("content", ())
    ms_per_token = _ASSISTANT_MS_PER_TOKEN if item.speaker == "assistant" else _USER_MS_PER_TOKEN
    audio = math.ceil(item.audio_ms() / ms_per_token)
    image = sum(
        85
        if parts[index].get("detail") == "low"
        else 85 + 170 * _tiles(picture.width) * _tiles(picture.height)
        for index, picture in item.images.items()
    )
    return Tokens(text, audio, image)


def _tiles(pixels: int) -> int:
    return math.ceil(pixels / 512)


def usage(read: Tokens, from_cache: Tokens, written: Tokens) -> dict[str, Any]:
    return {
        "total_tokens": sum(read) + sum(written),
        "input_tokens": sum(read),
        "output_tokens": sum(written),
        "input_token_details": {
            **_named(read),
            "cached_tokens": sum(from_cache),
            "cached_tokens_details": _named(from_cache),
        },
        "output_token_details": {"text_tokens": written.text, "audio_tokens": written.audio},
    }


def _named(tokens: Tokens) -> dict[str, int]:
    return {"text_tokens": tokens.text, "audio_tokens": tokens.audio, "image_tokens": tokens.image}
