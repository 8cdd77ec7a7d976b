"""What a response reads: which items are kept, and how much of it comes from the cache."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from .conversation import Item
from .errors import ClientError
from .usage import CACHE_STEP, Tokens, item_tokens, text_tokens, total

_CACHED_CONTEXTS = 8


class Segment(NamedTuple):
    """A piece of what the model reads; equal segments of two contexts are the same piece."""

    key: Hashable
    tokens: Tokens


def head_segment(instructions: str, tools: list[dict[str, Any]]) -> Segment:
    """Instructions and tools stand first, so changing them spoils the cache."""
    head = instructions + (msgspec.json.encode(tools).decode() if tools else "")
    return Segment(head, Tokens(text_tokens(head)))


def item_segments(items: Iterable[Item]) -> list[Segment]:
    return [Segment(item.content_key(), item_tokens(item)) for item in items]


def shortened(
    head: Segment, items: Sequence[Item], truncation: str | dict[str, Any], most_input: int
) -> list[Item]:
    """The items that are read: all, or without the oldest if all are more than may be. The newest is always
    kept. `truncation`: as in the session. Raises ClientError where nothing, or not enough, may be dropped."""
    most = most_input - sum(head.tokens)
    ratio = 1.0
    if isinstance(truncation, dict):
        ratio = truncation["retention_ratio"]
        most = min(most, (truncation.get("token_limits") or {}).get("post_instructions") or most)
    sizes = [sum(item_tokens(item)) for item in items]
    left = sum(sizes)
    if left <= most:
        return list(items)
    dropped = 0
    while truncation != "disabled" and left > most * ratio and dropped < len(items) - 1:
        left -= sizes[dropped]
        dropped += 1
    if left > most:
        raise ClientError("conversation_too_long", "Conversation is too long to create a Response.")
    return list(items[dropped:])


class Cache:
    """The contexts of the last eight responses."""

    def __init__(self) -> None:
        self._read: deque[list[Segment]] = deque(maxlen=_CACHED_CONTEXTS)

    def read(self, context: list[Segment]) -> Tokens:
        """The tokens this context begins with that an earlier one began with too, in whole steps of 64."""
        shared = max((_shared(context, before) for before in self._read), default=0)
        self._read.append(context)
        prefix = [segment.tokens for segment in context[:shared]]
        left = sum(total(prefix)) // CACHE_STEP * CACHE_STEP
        kept = Tokens()
        for tokens in prefix:
            taken = []
            for count in tokens:
                taken.append(min(count, left))
                left -= taken[-1]
            kept = kept.plus(Tokens(*taken))
        return kept


def _shared(context: Sequence[Segment], before: Sequence[Segment]) -> int:
    pairs = zip(context, before, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
