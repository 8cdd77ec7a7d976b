"""The session object and how a session.update changes it."""

from __future__ import annotations

from typing import Any

from .errors import ClientError

PCM = {"type": "audio/pcm", "rate": 24000}
DETECTION: dict[str, dict[str, Any]] = {
    "server_vad": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "semantic_vad": {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    },
}
DEFAULTS: dict[str, Any] = {
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
    "include": None,
    "prompt": None,
    "tracing": None,
}
AUDIO_INPUT: dict[str, Any] = {
    "format": PCM,
    "transcription": None,
    "noise_reduction": None,
    "turn_detection": DETECTION["server_vad"],
}
AUDIO_OUTPUT: dict[str, Any] = {"format": PCM, "voice": "marin", "speed": 1.0}


def new_session(session_id: str, model: str, expires_at: int) -> dict[str, Any]:
    """The session object of session.created; `expires_at` in Unix seconds."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "expires_at": expires_at,
        **DEFAULTS,
        "audio": {"input": AUDIO_INPUT, "output": AUDIO_OUTPUT},
    }


def updated(session: dict[str, Any], patch: dict[str, Any], *, has_spoken: bool) -> dict[str, Any]:
    """The session after a session.update: only what is present changes, null restores the default (which
    is "off" where there is an off), and turn_detection: null turns detection off."""
    audio = patch.get("audio") or {}
    before = session["audio"]
    audio_input, audio_output = (
        _input(before["input"], audio.get("input") or {}),
        _merged(before["output"], audio.get("output") or {}, AUDIO_OUTPUT),
    )
    for side, settings in (("input", audio_input), ("output", audio_output)):
        if settings["format"]["type"] != "audio/pcm":
            raise ClientError(
                "invalid_value",
                "Invalid value: the simulated model hears and speaks 'audio/pcm' only.",
                f"session.audio.{side}.format.type",
            )
    if has_spoken and audio_output["voice"] != before["output"]["voice"]:
        raise ClientError(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "session.audio.output.voice",
        )
    if session["tracing"] is not None and patch.get("tracing", session["tracing"]) != session["tracing"]:
        raise ClientError("invalid_value", "Tracing cannot be changed once it is on.", "session.tracing")
    plain = {key: value for key, value in patch.items() if key not in ("type", "audio", "model")}
    after = _merged(session, plain, DEFAULTS)
    after["audio"] = {"input": audio_input, "output": audio_output}
    return after


def _input(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    after = _merged(before, patch, AUDIO_INPUT)
    if "turn_detection" in patch:
        after["turn_detection"] = _detection(before["turn_detection"], patch["turn_detection"])
    # Omitting strength preserves the current strength (openai-python, RealtimeAudioConfigInput).
    if patch.get("noise_reduction") and before["noise_reduction"]:
        after["noise_reduction"] = before["noise_reduction"] | patch["noise_reduction"]
    return after


def _detection(before: dict[str, Any] | None, patch: dict[str, Any] | None) -> dict[str, Any] | None:
    if patch is None:
        return None
    defaults = DETECTION[patch["type"]]
    kept = before if before and before["type"] == patch["type"] else defaults
    return _merged(kept, patch, defaults)


def _merged(before: dict[str, Any], patch: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return before | {key: defaults.get(key) if value is None else value for key, value in patch.items()}
