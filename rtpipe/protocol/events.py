"""Builders and readers of events, so that nobody else spells their fields.

Readers take any decoded event, of either direction and of any shape, and answer None (or what is empty) where
a field is missing or has the wrong type. `with_…` and `without_…` return a new event and leave the given one
alone.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from rtpipe.protocol.catalogue import Client, Json, Server
from rtpipe.protocol.session_config import session_type

# --- errors -------------------------------------------------------------------------------------------------


def error_event(
    code: str | None,
    message: str,
    *,
    type_: str = "invalid_request_error",
    param: str | None = None,
    event_id: str | None = None,
    own_id: str,
) -> Json:
    """An `error` event as the upstream would send it.

    `event_id` names the client event that caused it; `own_id` is the id of the error event itself.
    """
    error = {"type": type_, "code": code, "message": message, "param": param, "event_id": event_id}
    return {"type": Server.ERROR, "event_id": own_id, "error": error}


def error_of(event: Json) -> tuple[str | None, str | None, str | None]:
    """`(code, event_id, param)` of an `error` event; `event_id` is that of the client event that caused
    it."""
    error = _object(event.get("error"))
    return _text(error.get("code")), _text(error.get("event_id")), _text(error.get("param"))


def without_error_cause(event: Json) -> Json:
    """An `error` event that names no client event: for a client that gave its event no id."""
    return {**event, "error": {**_object(event.get("error")), "event_id": None}}


# --- session ------------------------------------------------------------------------------------------------


def session_update(config: Json, event_id: str) -> Json:
    """A `session.update`. The session's `type`, which the upstream requires in every update, is added if
    missing."""
    session = {"type": session_type(config), **config}
    return {"type": Client.SESSION_UPDATE, "event_id": event_id, "session": session}


def session_created(session: Json, own_id: str) -> Json:
    """A `session.created` as the upstream would send it."""
    return {"type": Server.SESSION_CREATED, "event_id": own_id, "session": session}


def session_of(event: Json) -> Json | None:
    """The session object of a `session.created` or `session.updated`."""
    return _session(event) if event.get("type") in (Server.SESSION_CREATED, Server.SESSION_UPDATED) else None


def with_session(event: Json, session: Json) -> Json:
    """The event (of either direction) with another session object."""
    return {**event, "session": session}


def update_of(event: Json) -> Json | None:
    """The session object of a `session.update`."""
    return _session(event) if event.get("type") == Client.SESSION_UPDATE else None


def model_of_update(event: Json) -> str | None:
    """The model a `session.update` names. The upstream takes it from the URL and ignores this one."""
    return _text((update_of(event) or {}).get("model"))


def without_model(event: Json) -> Json:
    """A `session.update` without its model; the same object where it names none."""
    session = update_of(event)
    if session is None or "model" not in session:
        return event
    return with_session(event, {key: value for key, value in session.items() if key != "model"})


# --- responses ----------------------------------------------------------------------------------------------


def response_create(event_id: str, metadata: Mapping[str, str] | None = None) -> Json:
    """A `response.create` that asks for what the session is configured to answer."""
    event: Json = {"type": Client.RESPONSE_CREATE, "event_id": event_id}
    return with_create_metadata(event, metadata) if metadata else event


def response_cancel(event_id: str, response_id: str) -> Json:
    """A `response.cancel` of one response."""
    return {"type": Client.RESPONSE_CANCEL, "event_id": event_id, "response_id": response_id}


def response_of(event: Json) -> Json | None:
    """The response object of a `response.created` or `response.done`, or the parameters of a
    `response.create`."""
    response = event.get("response")
    return response if isinstance(response, dict) else None


def response_id_of(event: Json) -> str | None:
    """The response an event belongs to or names: top-level `response_id`, else `response.id`."""
    return _text(event.get("response_id")) or _text(_object(event.get("response")).get("id"))


def is_spoken(event: Json) -> bool:
    """Whether the response of a `response.created` will have audio: unless its modalities say otherwise."""
    modalities = (response_of(event) or {}).get("output_modalities")
    return not isinstance(modalities, list) or "audio" in modalities


def is_in_conversation(event: Json) -> bool:
    """Whether the response of a `response.created` belongs to the conversation: out of band it has no
    `conversation_id`, but one that does not say is taken to be in it."""
    return (response_of(event) or {}).get("conversation_id", "") is not None


def outcome_of(event: Json) -> tuple[str, str]:
    """Status of a `response.done`, and why it is not `completed`: the error's code, else the reason, else
    empty."""
    response = response_of(event) or {}
    details = _object(response.get("status_details"))
    code = _text(_object(details.get("error")).get("code"))
    return str(response.get("status")), code or _text(details.get("reason")) or ""


def was_cancelled(event: Json) -> bool:
    """Whether the response of a `response.done` was cut short, by whomever."""
    return outcome_of(event)[0] == "cancelled"


def was_interrupted(event: Json) -> bool:
    """Whether the caller cut the response of a `response.done` short by speaking."""
    return was_cancelled(event) and outcome_of(event)[1] == "turn_detected"


def calls_in(event: Json) -> list[str]:
    """The ids of the function calls that a `response.done` lists."""
    output = (response_of(event) or {}).get("output")
    items = [_object(item) for item in output] if isinstance(output, list) else []
    calls = [_text(item.get("call_id")) for item in items if item.get("type") == "function_call"]
    return [call for call in calls if call]


def response_metadata(event: Json) -> dict[str, Any]:
    """The metadata of an event's response, empty where there is none. The upstream repeats what a create
    said.

    Limits: 16 pairs, keys up to 64 and values up to 512 characters.
    """
    return _object(_object(event.get("response")).get("metadata"))


def with_create_metadata(event: Json, extra: Mapping[str, str]) -> Json:
    """A `response.create` with `extra` added to its metadata; the client's other keys stay."""
    response = _object(event.get("response"))
    return {**event, "response": {**response, "metadata": {**response_metadata(event), **extra}}}


def without_response_metadata(event: Json, key: str) -> Json:
    """The event without one key of its response's metadata; the same object where it is not there.

    Metadata that becomes empty is `null`, which is how the upstream writes that there is none.
    """
    metadata = response_metadata(event)
    if key not in metadata:
        return event
    rest = {name: value for name, value in metadata.items() if name != key}
    return {**event, "response": {**event["response"], "metadata": rest or None}}


def is_out_of_band(event: Json) -> bool:
    """Whether a `response.create` stays outside the conversation (`conversation: "none"`), so that it may run
    while another response does."""
    return (
        event.get("type") == Client.RESPONSE_CREATE
        and _object(event.get("response")).get("conversation") == "none"
    )


def audio_end_of(event: Json) -> float | None:
    """Where in the audio a turn ends: milliseconds of all that was appended, of an
    `input_audio_buffer.speech_stopped` or `.timeout_triggered`."""
    end_ms = event.get("audio_end_ms")
    return float(end_ms) if isinstance(end_ms, int | float) else None


def expires_at(session: Json) -> float | None:
    """When the upstream ends a session: seconds since 1970; None where it does not say."""
    moment = session.get("expires_at")
    return float(moment) if isinstance(moment, int | float) and moment > 0 else None


def speaks(create: Json, session: Json) -> bool:
    """Whether the response a `response.create` asks for has audio: by its own `output_modalities`, else by
    those of the session, which are audio where it does not say."""
    modalities = _object(create.get("response")).get("output_modalities") or session.get("output_modalities")
    return not isinstance(modalities, list) or "audio" in modalities


# --- items --------------------------------------------------------------------------------------------------


def item_of(event: Json) -> Json | None:
    """The item object of an event, of either direction."""
    item = event.get("item")
    return item if isinstance(item, dict) else None


def item_id_of(event: Json) -> str | None:
    """The item an event is about: `item.id`, else top-level `item_id`."""
    return _text(_object(event.get("item")).get("id")) or _text(event.get("item_id"))


def call_id_of(event: Json) -> str | None:
    """The function call an event is about: that of its function_call or function_call_output item, else the
    top-level `call_id` of the arguments events."""
    item = _object(event.get("item"))
    if item.get("type") in ("function_call", "function_call_output"):
        return _text(item.get("call_id"))
    return _text(event.get("call_id"))


def item_ids_named(event: Json) -> set[str]:
    """The items a client event refers to: `item_id`, `previous_item_id` (but `root`, which is none), and the
    references in a `response.create`'s input. Not the id a create gives its own item, nor the call of an
    output."""
    named = [event.get("item_id"), event.get("previous_item_id"), *references(event)]
    return {name for name in named if isinstance(name, str)} - {"root"}


def references(event: Json) -> list[str]:
    """The ids of the items a `response.create` takes as its input by reference."""
    entries = _object(event.get("response")).get("input")
    found = [_object(entry) for entry in entries] if isinstance(entries, list) else []
    return [
        entry["id"] for entry in found if entry.get("type") == "item_reference" and _text(entry.get("id"))
    ]


def event_id_of(event: Json) -> str | None:
    """The event's own `event_id`."""
    return _text(event.get("event_id"))


def with_event_id(event: Json, event_id: str) -> Json:
    """The event with this `event_id`."""
    return {**event, "event_id": event_id}


def with_item_id(event: Json, item_id: str) -> Json:
    """A `conversation.item.create` whose item has this id, so that its echo can be told from others."""
    return {**event, "item": {**_object(event.get("item")), "id": item_id}}


# --- payloads -----------------------------------------------------------------------------------------------

_DELTA: Final = re.compile(rb'"delta"\s*:\s*"')
_APPEND: Final = re.compile(rb'"audio"\s*:\s*"')
_PADDING: Final = ord("=")


def audio_delta_bytes(payload: bytes) -> int:
    """The bytes of audio (after base64) a `response.output_audio.delta` payload carries; 0 if none is found.

    Counts without decoding. Only for payloads of that type: in any other the number means nothing.
    """
    return _audio_bytes(payload, b'"delta":"', _DELTA)


def audio_append_bytes(payload: bytes) -> int:
    """The same for an `input_audio_buffer.append`."""
    return _audio_bytes(payload, b'"audio":"', _APPEND)


def _audio_bytes(payload: bytes, key: bytes, pattern: re.Pattern[bytes]) -> int:
    start = payload.find(key) + len(key)  # behind the opening quote
    if start < len(key):
        match = pattern.search(payload)
        if match is None:
            return 0
        start = match.end()
    end = payload.find(b'"', start)
    if end < 0:
        return 0
    if payload[end - 1] == _PADDING and end > start:
        end -= 2 if payload[end - 2] == _PADDING else 1
    if payload.find(b"\\", start) >= 0:
        # Some encoders write "/" as "\/". (Only then a count, which is much slower than a find.)
        return (end - start - payload.count(b"\\", start, end)) * 3 // 4
    return (end - start) * 3 // 4


def _session(event: Json) -> Json | None:
    session = event.get("session")
    return session if isinstance(session, dict) else None


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
