"""What the input_audio_buffer events do: hearing, turns, and the items that are made of them."""

from __future__ import annotations

import logging
from typing import Any

from .conversation import Item, decode_audio
from .detector import MIN_COMMIT_MS, Detected
from .errors import ClientError
from .replies import Replies
from .state import State
from .transcription import Transcription

log = logging.getLogger(__name__)


class Hearing:
    def __init__(self, state: State, replies: Replies) -> None:
        self._state = state
        self._replies = replies
        self._transcription = Transcription(state)
        self._next_item_id: str | None = None  # of the speech being heard

    async def append(self, event: dict[str, Any]) -> None:
        audio = decode_audio(event["audio"], "audio")
        detection = self._state.config["audio"]["input"]["turn_detection"]
        for detected in self._state.buffer.append(audio, self._state.input_encoding, detection):
            await self._hear(detected, detection)

    async def commit(self, _event: dict[str, Any]) -> None:
        held_ms = self._state.buffer.held_ms
        if held_ms < MIN_COMMIT_MS:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {held_ms:.2f}ms of audio.",
            )
        await self._transcription.begin(await self._commit_buffer())

    async def clear(self, _event: dict[str, Any]) -> None:
        self._state.buffer.clear()
        self._next_item_id = None
        await self._state.emit({"type": "input_audio_buffer.cleared"})

    async def _hear(self, detected: Detected, detection: dict[str, Any]) -> None:
        match detected.what:
            case "started":
                self._next_item_id = self._state.ids.new("item")
                await self._announce("speech_started", audio_start_ms=detected.at_ms)
                if detection.get("interrupt_response"):
                    await self._replies.interrupt()
            case "stopped":
                await self._announce("speech_stopped", audio_end_ms=detected.at_ms)
                await self._end_turn(detection)
            case "idle":
                self._next_item_id = self._state.ids.new("item")
                start_ms, self._state.buffer.quiet_from_ms = self._state.buffer.quiet_from_ms, None
                await self._announce(
                    "timeout_triggered", audio_start_ms=start_ms, audio_end_ms=detected.at_ms
                )
                await self._end_turn(detection)

    async def _announce(self, what: str, **times: int | None) -> None:
        event = {"type": f"input_audio_buffer.{what}", **times, "item_id": self._next_item_id}
        await self._state.emit(event)

    async def _end_turn(self, detection: dict[str, Any]) -> None:
        item = await self._commit_buffer()
        if detection.get("create_response"):
            if self._replies.active:
                # Documented: without interrupt_response "this may fail to create a response".
                log.debug("no response to this turn: %s is still active", self._replies.active.id)
            else:
                await self._replies.answer_turn()
        await self._transcription.begin(item)

    async def _commit_buffer(self) -> Item:
        item = Item(
            {
                "id": self._next_item_id or self._state.ids.new("item"),
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": None}],
            },
            encoding=self._state.buffer.encoding,
            audio={0: self._state.buffer.take()},
        )
        self._next_item_id = None
        previous = self._state.conversation.append(item)
        placed = {"previous_item_id": previous, "item": item.view()}
        await self._state.emit(
            {"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": item.id},
            {"type": "conversation.item.added", **placed},
            {"type": "conversation.item.done", **placed},
        )
        return item
