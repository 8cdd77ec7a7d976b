"""Tokens, as the service reports them in response.done.

User audio is 1 token per 100 ms and assistant audio 1 per 50 ms (OpenAI's documentation). Text is about 1 per
4 characters. The image formula of realtime models is not published: here an image is 85 tokens, and 170 more
for each tile of 512 x 512 pixels unless its detail is "low".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from .conversation import Item

CACHE_STEP = 64
_ASSISTANT_MS_PER_TOKEN = 50
_USER_MS_PER_TOKEN = 100
_PER_ITEM_TEXT = ("name", "arguments", "output")


class Tokens(NamedTuple):
    text: int = 0
    audio: int = 0
    image: int = 0

    def plus(self, other: Tokens) -> Tokens:
        return Tokens(*map(sum, zip(self, other, strict=True)))


class Segment(NamedTuple):
    """A piece of what the model reads; equal segments of two contexts are the same piece."""

    key: str
    tokens: Tokens


def text_tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


def item_tokens(item: Item) -> Tokens:
    parts = item.wire.get("content", ())
    text = sum(text_tokens(part.get("text") or "") for part in parts)
    text += sum(text_tokens(item.wire.get(key, "")) for key in _PER_ITEM_TEXT)
    ms_per_token = _USER_MS_PER_TOKEN
    if item.speaker == "assistant":
        ms_per_token = _ASSISTANT_MS_PER_TOKEN
        text += sum(text_tokens(part.get("transcript") or "") for part in parts)
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


def context_segments(instructions: str, tools: list[dict[str, Any]], items: Iterable[Item]) -> list[Segment]:
    """What one response reads. Instructions and tools stand first, so changing them spoils the cache."""
    head = instructions + (msgspec.json.encode(tools).decode() if tools else "")
    return [Segment(head, Tokens(text_tokens(head)))] + [
        Segment(item.id, item_tokens(item)) for item in items
    ]


def cached(context: Sequence[Segment], previous: Sequence[Segment]) -> Tokens:
    """The tokens this context begins with that the previous response began with too, in whole steps of 64."""
    shared = Tokens()
    for now, before in zip(context, previous, strict=False):
        if now != before:
            break
        shared = shared.plus(now.tokens)
    left = sum(shared) // CACHE_STEP * CACHE_STEP
    kept = []
    for count in shared:
        kept.append(min(count, left))
        left -= kept[-1]
    return Tokens(*kept)


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


def transcription_usage(model: str, audio_ms: int, transcript: str) -> dict[str, Any]:
    """Transcription is billed by its own model: whisper-1 by the second, the others by tokens."""
    if model == "whisper-1":
        return {"type": "duration", "seconds": audio_ms / 1000}
    heard, written = math.ceil(audio_ms / _USER_MS_PER_TOKEN), text_tokens(transcript)
    return {
        "type": "tokens",
        "total_tokens": heard + written,
        "input_tokens": heard,
        "output_tokens": written,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
    }
