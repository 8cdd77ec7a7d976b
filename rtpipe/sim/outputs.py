"""The items a response writes: the events of each kind, in the documented order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from .answers import Approval, Call, McpCall, Step
from .conversation import Conversation, Item
from .ids import Ids
from .mcp import run_tool
from .sound import Encoding
from .speech import CHUNK_MS, chunk, chunk_text, chunks_of
from .state import Emit
from .usage import text_tokens

TEXT_DELTA_SECONDS = 0.03
_ARGUMENT_DELTA_CHARS = 12
_TOKENS_PER_CHUNK = CHUNK_MS // 50


@dataclass
class Flow:
    """How fast the output of a response comes, and what ends it early. `left`: tokens it may still write.
    `stopped_by`: the reason of its status_details, or the code of its failure."""

    pace: float
    left: float
    stopped_by: str | None = None
    _stop: trio.Event = field(default_factory=trio.Event)
    _due: float = 0

    def begin(self) -> None:
        self._due = trio.current_time()

    def stop(self, reason: str) -> None:
        """It ends between two events: a send is never torn. The first reason stays."""
        self.stopped_by = self.stopped_by or reason
        self._stop.set()

    def stops(self, tokens: int) -> bool:
        """Whether the next piece, which costs so many tokens, is not to be made."""
        if tokens > self.left:
            self.stop("max_output_tokens")
        self.left -= tokens
        return self.stopped_by is not None

    async def wait(self, seconds: float) -> None:
        if not self.pace:
            return
        self._due += seconds / self.pace
        with trio.move_on_at(self._due):
            await self._stop.wait()


def blank_item(step: Step, ids: Ids, encoding: Encoding) -> Item:
    """The item that a step fills; `encoding`: of what it says."""
    if isinstance(step, str | Call):
        wire: dict[str, Any] = {
            "id": ids.new("item"),
            "object": "realtime.item",
            "status": "in_progress",
        }
        if isinstance(step, str):
            wire |= {"type": "message", "role": "assistant", "content": []}
            return Item(wire, encoding=encoding)
        called = {"name": step.name, "call_id": ids.new("call"), "arguments": ""}
        return Item(wire | {"type": "function_call"} | called)
    asked = {"server_label": step.server_label, "name": step.name}
    if isinstance(step, Approval):
        wire = {"id": ids.new("mcpr"), "type": "mcp_approval_request"}
        return Item(wire | asked | {"arguments": step.arguments})
    wire = {"id": ids.new("item"), "type": "mcp_call"}
    return Item(wire | asked | {"arguments": "", "approval_request_id": step.approval_request_id})


@dataclass
class Output:
    """One output item. `conversation`: None out of band. `where`: response_id and output_index."""

    item: Item
    where: dict[str, Any]
    conversation: Conversation | None
    emit: Emit
    flow: Flow

    async def write(self, step: Step, *, spoken: bool, speed: float, cut_by: str | None) -> None:
        """All events of the item. `cut_by`: what ends it in the middle of its words, if anything does."""
        previous = await self._open()
        if isinstance(step, str):
            await self._message(step, spoken, speed, cut_by)
        elif isinstance(step, Call):
            await self._function_call(step)
        elif isinstance(step, McpCall):
            await self._mcp_call(step)
        await self._close(previous)

    async def _open(self) -> str | None:
        view = self.item.view()
        await self.emit({"type": "response.output_item.added", **self.where, "item": view})
        if self.conversation is None:
            return None
        previous = self.conversation.append(self.item)
        await self.emit({"type": "conversation.item.added", "previous_item_id": previous, "item": view})
        return previous

    async def _close(self, previous: str | None) -> None:
        if "status" in self.item.wire:
            self.item.wire["status"] = "incomplete" if self.flow.stopped_by else "completed"
        view = self.item.view()
        if self.conversation is not None:
            await self.emit({"type": "conversation.item.done", "previous_item_id": previous, "item": view})
        await self.emit({"type": "response.output_item.done", **self.where, "item": view})

    async def _message(self, text: str, spoken: bool, speed: float, cut_by: str | None) -> None:
        part: dict[str, Any] = (
            {"type": "output_audio", "transcript": ""} if spoken else {"type": "output_text", "text": ""}
        )
        self.item.wire["content"] = [part]
        if spoken:
            self.item.audio[0] = bytearray()
        key = "transcript" if spoken else "text"
        kind = "response.output_audio_transcript" if spoken else "response.output_text"
        at = self.where | {"item_id": self.item.id, "content_index": 0}
        # Content parts of these two events are "audio" and "text", without the "output_" of items.
        shown = {"type": "audio" if spoken else "text"}
        await self.emit({"type": "response.content_part.added", **at, "part": shown | {key: ""}})
        said = ""
        for words, sound in _script(text, spoken, speed):
            if cut_by and 2 * len(said) >= len(text):
                self.flow.stop(cut_by)
            if self.flow.stops(
                text_tokens(said + words) - text_tokens(said) + (sound is not None) * _TOKENS_PER_CHUNK
            ):
                break
            if words:
                said += words
                part[key] = said
                await self.emit({"type": f"{kind}.delta", **at, "delta": words})
            if sound is not None:
                self.item.audio[0] += chunk(sound, self.item.encoding)
                delta = chunk_text(sound, self.item.encoding)
                await self.emit({"type": "response.output_audio.delta", **at, "delta": delta})
            await self.flow.wait(TEXT_DELTA_SECONDS if sound is None else CHUNK_MS / 1000)
        if cut_by:
            self.flow.stop(cut_by)
        if spoken:
            await self.emit({"type": "response.output_audio.done", **at})
        await self.emit(
            {"type": f"{kind}.done", **at, key: said},
            {"type": "response.content_part.done", **at, "part": shown | {key: said}},
        )

    async def _function_call(self, call: Call) -> None:
        at = self.where | {"item_id": self.item.id, "call_id": self.item.wire["call_id"]}
        await self._arguments("response.function_call_arguments", call, at)
        # Documented to come for interrupted, incomplete and cancelled calls too.
        done = {"name": call.name, "arguments": self.item.wire["arguments"]}
        await self.emit({"type": "response.function_call_arguments.done", **at, **done})

    async def _mcp_call(self, call: McpCall) -> None:
        at = self.where | {"item_id": self.item.id}
        await self._arguments("response.mcp_call_arguments", call, at)
        arguments = self.item.wire["arguments"]
        await self.emit({"type": "response.mcp_call_arguments.done", **at, "arguments": arguments})
        if self.flow.stopped_by:
            return
        run = {"item_id": self.item.id, "output_index": self.where["output_index"]}
        await self.emit({"type": "response.mcp_call.in_progress", **run})
        self.item.wire |= run_tool(call.name, arguments)
        outcome = "failed" if "error" in self.item.wire else "completed"
        await self.emit({"type": f"response.mcp_call.{outcome}", **run})

    async def _arguments(self, kind: str, call: Call | McpCall, at: dict[str, Any]) -> None:
        self.flow.left -= text_tokens(call.name)
        for start in range(0, len(call.arguments), _ARGUMENT_DELTA_CHARS):
            delta = call.arguments[start : start + _ARGUMENT_DELTA_CHARS]
            if self.flow.stops(text_tokens(delta)):
                break
            self.item.wire["arguments"] += delta
            await self.emit({"type": f"{kind}.delta", **at, "delta": delta})
            await self.flow.wait(TEXT_DELTA_SECONDS)


def _script(text: str, spoken: bool, speed: float) -> Iterator[tuple[str, int | None]]:
    """Deltas of text, each with the index of its sound; words come a little before they sound."""
    words = re.findall(r"\s*\S+|\s+", text)
    if not spoken:
        yield from ((word, None) for word in words)
        return
    sounds = chunks_of(text, speed)
    said = 0
    for sound in range(sounds):
        due = math.ceil((sound + 1) * len(words) / sounds)
        yield "".join(words[said:due]), sound
        said = due
