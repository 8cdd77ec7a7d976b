"""One response: from response.created to response.done, in the documented order of events."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from .answers import Call, Settings, answer
from .conversation import Conversation, Item
from .ids import Ids
from .speech import CHUNK_MS, chunk, chunk_text, chunks_of
from .state import Emit
from .usage import Segment, Tokens, context_segments, item_tokens, text_tokens, usage
from .usage import cached as cached_tokens

TEXT_DELTA_SECONDS = 0.03
_ARGUMENT_DELTA_CHARS = 12
_TOKENS_PER_CHUNK = CHUNK_MS // 50
_TOKENS_PER_MINUTE = 40_000
_REQUESTS_PER_MINUTE = 200


@dataclass
class Request:
    """What a response is made from. `conversation` is None for an out-of-band response."""

    conversation: Conversation | None
    context: Sequence[Item]
    previous_context: Sequence[Segment]
    settings: Settings
    modalities: list[str]
    max_output_tokens: int | str
    voice: str | dict[str, str]
    format: dict[str, Any]
    speed: float
    metadata: dict[str, str] | None


@dataclass
class Response:
    request: Request
    ids: Ids
    emit: Emit
    pace: float
    on_done: Callable[[Response], None]
    finished: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        request = self.request
        self.id = self.ids.new("resp")
        self.read = context_segments(request.settings.instructions, request.settings.tools, request.context)
        decided = answer(request.context, request.settings)
        self._plan: list[str | Call] = [decided] if isinstance(decided, str) else [*decided]
        # All ids are made here, so that responses side by side cannot change each other's.
        self._items = [self._blank(step) for step in self._plan]
        self._output: list[Item] = []
        self._left = math.inf if request.max_output_tokens == "inf" else int(request.max_output_tokens)
        self._stopped_by: str | None = None
        self._stop = trio.Event()
        self._due = 0.0

    @property
    def speaks(self) -> bool:
        return self.request.modalities == ["audio"] and any(isinstance(step, str) for step in self._plan)

    def cancel(self, reason: str) -> None:
        """Ask it to end with status cancelled. It ends between two events: a send is never torn."""
        self._stopped_by = reason
        self._stop.set()

    async def announce(self) -> None:
        await self.emit({"type": "response.created", "response": self._view("in_progress", None)})

    async def run(self) -> None:
        self._due = trio.current_time()
        for index, (step, item) in enumerate(zip(self._plan, self._items, strict=True)):
            if self._stopped_by:
                break
            self._output.append(item)
            where = {"response_id": self.id, "output_index": index}
            if isinstance(step, str):
                await self._message(step, item, where)
            else:
                await self._function_call(step, item, where)
        await self._finish()

    async def _finish(self) -> None:
        status, details = "completed", None
        if self._stopped_by:
            status = "incomplete" if self._stopped_by == "max_output_tokens" else "cancelled"
            details = {"type": status, "reason": self._stopped_by}
        written = Tokens()
        for item in self._output:
            written = written.plus(item_tokens(item))
        read = Tokens()
        for segment in self.read:
            read = read.plus(segment.tokens)
        bill = usage(read, cached_tokens(self.read, self.request.previous_context), written)
        # Before the client can know that it is over, or its next response.create would be refused.
        self.on_done(self)
        await self.emit(
            {"type": "response.done", "response": self._view(status, bill) | {"status_details": details}},
            _rate_limits(bill["total_tokens"]),
        )
        self.finished.set()

    async def _message(self, text: str, item: Item, where: dict[str, Any]) -> None:
        spoken = self.request.modalities == ["audio"]
        previous = await self._open(item, where)
        part: dict[str, Any] = (
            {"type": "output_audio", "transcript": ""} if spoken else {"type": "output_text", "text": ""}
        )
        item.wire["content"] = [part]
        if spoken:
            item.audio[0] = bytearray()
        key = "transcript" if spoken else "text"
        kind = "response.output_audio_transcript" if spoken else "response.output_text"
        at = where | {"item_id": item.id, "content_index": 0}
        # Content parts of these two events are "audio" and "text", without the "output_" of items.
        shown = {"type": "audio" if spoken else "text"}
        await self.emit({"type": "response.content_part.added", **at, "part": shown | {key: ""}})
        said = ""
        for words, sound in self._script(text, spoken):
            if self._stops(
                text_tokens(said + words) - text_tokens(said) + (sound is not None) * _TOKENS_PER_CHUNK
            ):
                break
            if words:
                said += words
                part[key] = said
                await self.emit({"type": f"{kind}.delta", **at, "delta": words})
            if sound is not None:
                item.audio[0] += chunk(sound)
                await self.emit({"type": "response.output_audio.delta", **at, "delta": chunk_text(sound)})
            await self._wait(TEXT_DELTA_SECONDS if sound is None else CHUNK_MS / 1000)
        if spoken:
            await self.emit({"type": "response.output_audio.done", **at})
        await self.emit(
            {"type": f"{kind}.done", **at, key: said},
            {"type": "response.content_part.done", **at, "part": shown | {key: said}},
        )
        await self._close(item, where, previous)

    def _script(self, text: str, spoken: bool) -> Iterator[tuple[str, int | None]]:
        """Deltas of text, each with the index of its sound; words come a little before they sound."""
        words = re.findall(r"\s*\S+|\s+", text)
        if not spoken:
            yield from ((word, None) for word in words)
            return
        sounds = chunks_of(text, self.request.speed)
        said = 0
        for sound in range(sounds):
            due = math.ceil((sound + 1) * len(words) / sounds)
            yield "".join(words[said:due]), sound
            said = due

    async def _function_call(self, call: Call, item: Item, where: dict[str, Any]) -> None:
        previous = await self._open(item, where)
        at = where | {"item_id": item.id, "call_id": item.wire["call_id"]}
        kind = "response.function_call_arguments"
        self._left -= text_tokens(call.name)
        for start in range(0, len(call.arguments), _ARGUMENT_DELTA_CHARS):
            delta = call.arguments[start : start + _ARGUMENT_DELTA_CHARS]
            if self._stops(text_tokens(delta)):
                break
            item.wire["arguments"] += delta
            await self.emit({"type": f"{kind}.delta", **at, "delta": delta})
            await self._wait(TEXT_DELTA_SECONDS)
        # Documented to come for interrupted, incomplete and cancelled calls too.
        await self.emit(
            {"type": f"{kind}.done", **at, "name": call.name, "arguments": item.wire["arguments"]}
        )
        await self._close(item, where, previous)

    async def _open(self, item: Item, where: dict[str, Any]) -> str | None:
        view = item.view()
        await self.emit({"type": "response.output_item.added", **where, "item": view})
        if self.request.conversation is None:
            return None
        previous = self.request.conversation.append(item)
        await self.emit({"type": "conversation.item.added", "previous_item_id": previous, "item": view})
        return previous

    async def _close(self, item: Item, where: dict[str, Any], previous: str | None) -> None:
        item.wire["status"] = "incomplete" if self._stopped_by else "completed"
        view = item.view()
        if self.request.conversation is not None:
            await self.emit({"type": "conversation.item.done", "previous_item_id": previous, "item": view})
        await self.emit({"type": "response.output_item.done", **where, "item": view})

    def _stops(self, tokens: int) -> bool:
        """Whether the next delta, which costs so many tokens, is not to be made."""
        if not self._stopped_by and tokens > self._left:
            self._stopped_by = "max_output_tokens"
        self._left -= tokens
        return self._stopped_by is not None

    async def _wait(self, seconds: float) -> None:
        if not self.pace:
            return
        self._due += seconds / self.pace
        with trio.move_on_at(self._due):
            await self._stop.wait()

    def _blank(self, step: str | Call) -> Item:
        wire = {"id": self.ids.new("item"), "object": "realtime.item", "status": "in_progress"}
        if isinstance(step, str):
            return Item(wire | {"type": "message", "role": "assistant", "content": []})
        return Item(
            wire
            | {"type": "function_call", "name": step.name, "call_id": self.ids.new("call"), "arguments": ""}
        )

    def _view(self, status: str, bill: dict[str, Any] | None) -> dict[str, Any]:
        request = self.request
        voice = request.voice if isinstance(request.voice, str) else request.voice["id"]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": None,
            "output": [item.view() for item in self._output],
            "conversation_id": request.conversation.id if request.conversation else None,
            "output_modalities": request.modalities,
            "max_output_tokens": request.max_output_tokens,
            "audio": {"output": {"format": request.format, "voice": voice}},
            "usage": bill,
            "metadata": request.metadata,
        }


def _rate_limits(tokens: int) -> dict[str, Any]:
    """Tier 1 of the published limits, with this response alone counted."""
    return {
        "type": "rate_limits.updated",
        "rate_limits": [
            {
                "name": name,
                "limit": limit,
                "remaining": max(0, limit - used),
                "reset_seconds": round(60 * min(used, limit) / limit, 3),
            }
            for name, limit, used in (
                ("requests", _REQUESTS_PER_MINUTE, 1),
                ("tokens", _TOKENS_PER_MINUTE, tokens),
            )
        ],
    }
