"""One response: from response.created to response.done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from .answers import Answer
from .conversation import Conversation, Item
from .ids import Ids
from .outputs import Flow, Output, blank_item
from .sound import encoding_of
from .state import Emit
from .usage import Tokens, item_tokens, total, usage


@dataclass
class Request:
    """What a response is made from. `conversation`: None for an out-of-band response. `read`, `from_cache`:
    the tokens of its input. `reasoning_tokens`: what it thinks before it writes."""

    conversation: Conversation | None
    answer: Answer
    read: Tokens
    from_cache: Tokens
    reasoning_tokens: int
    modalities: list[str]
    max_output_tokens: int | str
    voice: str | dict[str, str]
    format: dict[str, Any]
    speed: float
    metadata: dict[str, str] | None


@dataclass
class Response:
    """`on_done`: called with the response and its usage just before response.done is sent; what it returns
    is sent after that."""

    request: Request
    ids: Ids
    emit: Emit
    pace: float
    on_done: Callable[[Response, dict[str, Any]], dict[str, Any]]
    finished: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        request = self.request
        self.id = self.ids.new("resp")
        failure = request.answer.failure
        self._steps = [] if failure and not failure.midway else request.answer.steps
        # All ids are made here, so that responses side by side cannot change each other's.
        self._items = [blank_item(step, self.ids, encoding_of(request.format)) for step in self._steps]
        self._output: list[Item] = []
        self._thought = 0
        most = request.max_output_tokens
        self._flow = Flow(self.pace, math.inf if most == "inf" else int(most))

    @property
    def speaks(self) -> bool:
        return self.request.modalities == ["audio"] and any(isinstance(step, str) for step in self._steps)

    def audio_ms(self) -> int:
        """How long it takes to play what it has said so far."""
        return sum(item.audio_ms() for item in self._output)

    def cancel(self, reason: str) -> None:
        """Ask it to end with status cancelled."""
        self._flow.stop(reason)

    async def announce(self) -> None:
        await self.emit({"type": "response.created", "response": self._view("in_progress", None)})

    async def run(self) -> None:
        self._flow.begin()
        request, failure = self.request, self.request.answer.failure
        if self._steps and not self._flow.stopped_by:
            self._thought = int(min(request.reasoning_tokens, self._flow.left))
            self._flow.stops(request.reasoning_tokens)
        for index, (step, item) in enumerate(zip(self._steps, self._items, strict=True)):
            if self._flow.stopped_by:
                break
            if request.answer.pauses_s:
                await self._flow.wait(request.answer.pauses_s[index])
            self._output.append(item)
            where = {"response_id": self.id, "output_index": index}
            output = Output(item, where, request.conversation, self.emit, self._flow)
            last = index == len(self._steps) - 1
            await output.write(
                step,
                spoken=request.modalities == ["audio"],
                speed=request.speed,
                cut_by=failure.code if failure and last else None,
            )
        await self._finish()

    async def _finish(self) -> None:
        bill = self._bill()
        # Before the client can know that it is over, or its next response.create would be refused.
        afterwards = self.on_done(self, bill)
        status, details = self._outcome()
        done = self._view(status, bill) | {"status_details": details}
        await self.emit({"type": "response.done", "response": done}, afterwards)
        self.finished.set()

    def _outcome(self) -> tuple[str, dict[str, Any] | None]:
        failure, reason = self.request.answer.failure, self._flow.stopped_by
        if failure and reason in (None, failure.code):
            return failure.status, failure.details()
        if reason is None:
            return "completed", None
        status = "incomplete" if reason == "max_output_tokens" else "cancelled"
        return status, {"type": status, "reason": reason}

    def _bill(self) -> dict[str, Any]:
        """The usage. Tokens of reasoning are part of the text that was written, and are counted once."""
        if self.request.answer.failure and not self._steps:
            return usage(Tokens(), Tokens(), Tokens())
        written = total(map(item_tokens, self._output)).plus(Tokens(text=self._thought))
        return usage(self.request.read, self.request.from_cache, written)

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
