"""Transcripts of what users say: made beside the conversation, by a model and at a price of their own."""

from __future__ import annotations

import math
from typing import Any

import trio

from .conversation import Item
from .state import State
from .usage import text_tokens

# Priced by the second of audio, and reported so; the others are priced by tokens.
_BY_DURATION = ("whisper-1", "gpt-live-transcribe", "gpt-realtime-whisper")
_MS_PER_TOKEN = 100

# No sum of these is a multiple of what responses wait for (0.1 and 0.03 s), so that no two events of one
# session are ever due at the same time, and their order is the same in every run.
FIRST_SECONDS = 0.4375
DELTA_SECONDS = 0.05

# Said in the transcription's prompt, it makes every transcription fail.
FAIL = "fail transcription"
_KIND = "conversation.item.input_audio_transcription"


class Transcription:
    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self, item: Item) -> None:
        """Transcribe the audio of a committed item, if the session asks for it. In time it comes beside
        whatever else goes on; at pace 0, where there is no time, at once."""
        settings = self._state.config["audio"]["input"]["transcription"]
        if settings is None:
            return
        logprobs = bool(self._state.config["include"])
        if self._state.options.pace:
            self._state.nursery.start_soon(self._in_time, item, settings, logprobs, name="transcription")
        else:
            await self._state.emit(*_events(item, settings, logprobs))

    async def _in_time(self, item: Item, settings: dict[str, Any], logprobs: bool) -> None:
        due = trio.current_time() + FIRST_SECONDS / self._state.options.pace
        for event in _events(item, settings, logprobs):
            await trio.sleep_until(due)
            await self._state.emit(event)
            due += DELTA_SECONDS / self._state.options.pace


def _events(item: Item, settings: dict[str, Any], logprobs: bool) -> list[dict[str, Any]]:
    at = {"item_id": item.id, "content_index": 0}
    if FAIL in (settings.get("prompt") or ""):
        error = {
            "type": "transcription_error",
            "code": "audio_unintelligible",
            "message": "The audio could not be transcribed.",
            "param": None,
        }
        return [{"type": f"{_KIND}.failed", **at, "error": error}]
    model = settings.get("model") or "whisper-1"
    seconds = item.audio_ms() / 1000
    transcript = f"Speech of {seconds:.1f} seconds."
    item.wire["content"][0]["transcript"] = transcript
    # whisper-1 is documented to send all of it in one delta.
    words = [transcript] if model == "whisper-1" else _words(transcript)
    events = [
        {"type": f"{_KIND}.delta", **at, "delta": word, **_logprobs([word], logprobs)} for word in words
    ]
    if "diarize" in model:
        segment = {"id": f"seg_{item.id}", "speaker": "A", "start": 0.0, "end": seconds, "text": transcript}
        events.append({"type": f"{_KIND}.segment", **at, **segment})
    completed: dict[str, Any] = {"type": f"{_KIND}.completed", **at, "transcript": transcript}
    if model == "gpt-transcribe":
        spoken = settings.get("languages") or [settings.get("language") or "en"]
        completed["languages"] = [{"code": spoken[0]}]
    return [*events, completed | _logprobs(words, logprobs) | {"usage": _usage(model, item, transcript)}]


def _words(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def _logprobs(words: list[str], wanted: bool) -> dict[str, Any]:
    if not wanted:
        return {}
    return {
        "logprobs": [{"token": word, "logprob": -0.01, "bytes": list(word.encode())} for word in words],
    }


def _usage(model: str, item: Item, transcript: str) -> dict[str, Any]:
    if model in _BY_DURATION:
        return {"type": "duration", "seconds": item.audio_ms() / 1000}
    heard, written = math.ceil(item.audio_ms() / _MS_PER_TOKEN), text_tokens(transcript)
    return {
        "type": "tokens",
        "total_tokens": heard + written,
        "input_tokens": heard,
        "output_tokens": written,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
    }
