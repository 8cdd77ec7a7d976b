"""The session object and how a session.update changes it."""

from __future__ import annotations

from typing import Any

from .errors import ClientError, invalid_value

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
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
# A transcription session never answers, so its detection has nothing of responses.
TRANSCRIPTION_DETECTION = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
Voice = str | dict[str, str]
# OpenAI's documentation names them; snapshots add a date.
TRANSCRIPTION_MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-realtime-whisper",
)
MCP_ADDRESSES = ("server_url", "connector_id", "tunnel_id")


def new_session(
    session_id: str, model: str | None, expires_at: int, kind: str = "realtime"
) -> dict[str, Any]:
    """The session object of session.created; `expires_at` in Unix seconds. `kind`: "realtime", or
    "transcription", which has no model of its own and never answers."""
    about = {"type": kind, "id": session_id, "expires_at": expires_at}
    if kind == "transcription":
        audio_input = AUDIO_INPUT | {"turn_detection": _without_responses(AUDIO_INPUT["turn_detection"])}
        about["object"] = "realtime.transcription_session"
        return {**about, "include": None, "audio": {"input": audio_input}}
    about |= {"object": "realtime.session", "model": model}
    return {**about, **DEFAULTS, "audio": {"input": AUDIO_INPUT, "output": AUDIO_OUTPUT}}


def updated(session: dict[str, Any], patch: dict[str, Any], *, has_spoken: bool) -> dict[str, Any]:
    """The session after a session.update: only what is present changes, null restores the default (which
    is "off" where there is an off), and turn_detection: null turns detection off. Raises ClientError, and
    then nothing has changed."""
    if patch["type"] != session["type"]:
        raise ClientError(
            "invalid_parameter",
            f"Passing a {patch['type']} session update event to a {session['type']} session is not allowed.",
            "session.type",
        )
    audio = patch.get("audio") or {}
    before = session["audio"]
    after = _merged(
        session,
        {key: value for key, value in patch.items() if key not in ("type", "audio", "model")},
        DEFAULTS,
    )
    after["audio"] = {"input": _input(before["input"], audio.get("input") or {})}
    if session["type"] == "transcription":
        _check_transcription(after["audio"]["input"])
        return after
    after["audio"]["output"] = _output(before["output"], audio.get("output") or {}, has_spoken)
    _check_tracing(session["tracing"], after["tracing"])
    _check_tools(after["tools"])
    return after


def _input(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    after = _merged(before, patch, AUDIO_INPUT)
    after["format"] = _format(after["format"])
    if "turn_detection" in patch:
        after["turn_detection"] = _detection(before["turn_detection"], patch["turn_detection"])
    if after["noise_reduction"]:
        # Omitting strength preserves the current one; it is 1 when noise reduction is first enabled.
        kept = before["noise_reduction"] or {"strength": 1.0}
        after["noise_reduction"] = kept | after["noise_reduction"]
    model = (after["transcription"] or {}).get("model")
    if model is not None and not model.startswith(TRANSCRIPTION_MODELS):
        raise invalid_value("session.audio.input.transcription.model", model, TRANSCRIPTION_MODELS)
    return after


def _output(before: dict[str, Any], patch: dict[str, Any], has_spoken: bool) -> dict[str, Any]:
    after = _merged(before, patch, AUDIO_OUTPUT)
    after["format"] = _format(after["format"])
    check_voice(after["voice"], before["voice"] if has_spoken else None, "session")
    return after


def check_voice(voice: Voice, fixed: Voice | None, where: str) -> None:
    """Refuse a voice that does not exist, or another than the one that was heard. `where`: "session" or
    "response", for errors."""
    param = f"{where}.audio.output.voice"
    if isinstance(voice, str) and voice not in VOICES:
        raise invalid_value(param, voice, VOICES)
    if fixed is not None and voice != fixed:
        raise ClientError(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            param,
        )


def _format(format_: dict[str, Any]) -> dict[str, Any]:
    return PCM if format_["type"] == PCM["type"] else format_


def _check_tracing(before: Any, after: Any) -> None:
    if before is not None and after != before:
        raise ClientError("invalid_value", "Tracing cannot be changed once it is on.", "session.tracing")


def _check_tools(tools: list[dict[str, Any]]) -> None:
    for index, tool in enumerate(tools):
        if tool["type"] == "mcp" and not any(tool.get(key) for key in MCP_ADDRESSES):
            raise ClientError(
                "missing_required_parameter",
                f"One of {', '.join(MCP_ADDRESSES)} must be provided for an MCP tool.",
                f"session.tools[{index}].server_url",
            )


def _check_transcription(audio_input: dict[str, Any]) -> None:
    if detection := audio_input["turn_detection"]:
        audio_input["turn_detection"] = _without_responses(detection)
        if ((audio_input["transcription"] or {}).get("model") or "").startswith("gpt-realtime-whisper"):
            raise ClientError(
                "invalid_value",
                "Turn detection must be null with gpt-realtime-whisper: VAD is not supported.",
                "session.audio.input.turn_detection",
            )


def _without_responses(detection: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in detection.items() if key in TRANSCRIPTION_DETECTION}


def _detection(before: dict[str, Any] | None, patch: dict[str, Any] | None) -> dict[str, Any] | None:
    if patch is None:
        return None
    defaults = DETECTION[patch["type"]]
    kept = before if before and before["type"] == patch["type"] else defaults
    return _merged(kept, patch, defaults)


def _merged(before: dict[str, Any], patch: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return before | {key: defaults.get(key) if value is None else value for key, value in patch.items()}
