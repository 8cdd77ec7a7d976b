"""What the input_audio_buffer events do: hearing, turns, committed items and their transcripts."""

from __future__ import annotations

import logging
from typing import Any

from .conversation import Item, decode_audio
from .errors import ClientError
from .replies import Replies
from .speech import MIN_COMMIT_MS, Detected, InputAudioBuffer
from .state import State
from .usage import transcription_usage

log = logging.getLogger(__name__)


class Hearing:
    def __init__(self, state: State, replies: Replies) -> None:
        self._state = state
        self._replies = replies
        self._buffer = InputAudioBuffer()
        self._next_item_id: str | None = None  # of the speech being heard

    async def append(self, event: dict[str, Any]) -> None:
        audio = decode_audio(event["audio"], "audio")
        for detected in self._buffer.append(audio, self._state.config["audio"]["input"]["turn_detection"]):
            await self._hear(detected)

    async def commit(self, _event: dict[str, Any]) -> None:
        if self._buffer.held_ms < MIN_COMMIT_MS:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {self._buffer.held_ms:.2f}ms of audio.",
            )
        await self._commit_buffer()

    async def clear(self, _event: dict[str, Any]) -> None:
        self._buffer.clear()
        self._next_item_id = None
        await self._state.emit({"type": "input_audio_buffer.cleared"})

    async def _hear(self, detected: Detected) -> None:
        detection = self._state.config["audio"]["input"]["turn_detection"]
        if detected.what == "started":
            self._next_item_id = self._state.ids.new("item")
            await self._state.emit(
                {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": detected.at_ms,
                    "item_id": self._next_item_id,
                }
            )
            if detection["interrupt_response"]:
                await self._replies.interrupt()
            return
        await self._state.emit(
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": detected.at_ms,
                "item_id": self._next_item_id,
            }
        )
        await self._commit_buffer()
        if not detection["create_response"]:
            return
        if (
            self._replies.active
        ):  # documented: without interrupt_response "this may fail to create a response"
            log.debug("no response to this turn: %s is still active", self._replies.active.id)
            return
        await self._replies.answer_turn()

    async def _commit_buffer(self) -> None:
        content = {"type": "input_audio", "transcript": None}
        item = Item(
            {
                "id": self._next_item_id or self._state.ids.new("item"),
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [content],
            },
            audio={0: self._buffer.take()},
        )
        self._next_item_id = None
        previous = self._state.conversation.append(item)
        placed = {"previous_item_id": previous, "item": item.view()}
        await self._state.emit(
            {"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": item.id},
            {"type": "conversation.item.added", **placed},
            {"type": "conversation.item.done", **placed},
        )
        if transcription := self._state.config["audio"]["input"]["transcription"]:
            await self._transcribe(item, transcription.get("model") or "whisper-1")

    async def _transcribe(self, item: Item, model: str) -> None:
        transcript = f"Speech of {item.audio_ms() / 1000:.1f} seconds."
        item.wire["content"][0]["transcript"] = transcript
        kind = "conversation.item.input_audio_transcription"
        at = {"item_id": item.id, "content_index": 0}
        for word in transcript.split(" "):
            await self._state.emit(
                {"type": f"{kind}.delta", **at, "delta": word if word == "Speech" else f" {word}"}
            )
        spent = transcription_usage(model, item.audio_ms(), transcript)
        await self._state.emit({"type": f"{kind}.completed", **at, "transcript": transcript, "usage": spent})
