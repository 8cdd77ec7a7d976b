"""The retired beta dialect of the Realtime protocol, which old clients still speak, to GA and back.

Only names and shapes differ; what no table here names passes as it is. Sources: the beta types that
openai-python 3.54.0 still ships (`openai.types.beta.realtime`), and OpenAI's guide from beta to GA.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import Client, Json, Server
from rtpipe.protocol.reading import (
    Unreadable,
    decode,
    encode,
    peek_server_type,
    read_client,
    with_server_type,
)

HEADER: Final = "openai-beta"
HEADER_VALUE: Final = "realtime=v1"
SUBPROTOCOL: Final = "openai-beta.realtime-v1"

TRANSCRIPTION_UPDATE: Final = "transcription_session.update"

RENAMED: Final[Mapping[str, str]] = {
    Server.AUDIO_DELTA: "response.audio.delta",
    Server.AUDIO_DONE: "response.audio.done",
    Server.TRANSCRIPT_DELTA: "response.audio_transcript.delta",
    Server.TRANSCRIPT_DONE: "response.audio_transcript.done",
    Server.TEXT_DELTA: "response.text.delta",
    Server.TEXT_DONE: "response.text.done",
    Server.ITEM_ADDED: Server.ITEM_CREATED,
}
"""What the beta called a server event. A transcription session's events are named in `from_ga`."""

_NO_MCP: Final = "the beta had no MCP tools"
DROPPED: Final[Mapping[str, str]] = {
    Server.ITEM_DONE: "the beta announced an item once, when it was created",
    Server.TRANSCRIPTION_SEGMENT: "the beta had no segments; the completed transcript follows",
    Server.TIMEOUT_TRIGGERED: "the beta had no idle timeout; the response that follows is told",
    Server.DTMF_RECEIVED: "the beta had no telephone calls",
    Server.MCP_ARGUMENTS_DELTA: _NO_MCP,
    Server.MCP_ARGUMENTS_DONE: _NO_MCP,
    Server.MCP_CALL_IN_PROGRESS: _NO_MCP,
    Server.MCP_CALL_COMPLETED: _NO_MCP,
    Server.MCP_CALL_FAILED: _NO_MCP,
    Server.MCP_LIST_TOOLS_IN_PROGRESS: _NO_MCP,
    Server.MCP_LIST_TOOLS_COMPLETED: _NO_MCP,
    Server.MCP_LIST_TOOLS_FAILED: _NO_MCP,
}
"""Server events that a beta client could not know and is not sent, and why that is no loss."""

# Beta key, and the GA path of the same thing.
_OUTPUT: Final = (
    ("modalities", "output_modalities"),
    ("voice", "audio.output.voice"),
    ("output_audio_format", "audio.output.format"),
)
_MAX_TOKENS: Final = ("max_response_output_tokens", "max_output_tokens")
_SESSION: Final = (
    *_OUTPUT,
    _MAX_TOKENS,
    ("speed", "audio.output.speed"),
    ("input_audio_format", "audio.input.format"),
    ("input_audio_transcription", "audio.input.transcription"),
    ("input_audio_noise_reduction", "audio.input.noise_reduction"),
    ("turn_detection", "audio.input.turn_detection"),
)
_REQUEST: Final = (*_OUTPUT, _MAX_TOKENS)
_GONE: Final = frozenset({"temperature", "client_secret"})
_FORMATS: Final[Mapping[str, Json]] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_FORMAT_NAMES: Final = {value["type"]: name for name, value in _FORMATS.items()}
_CONTENT: Final = {"text": "output_text", "audio": "output_audio"}
_BETA_CONTENT: Final = {ga: beta for beta, ga in _CONTENT.items()}
_TRANSCRIPTION: Final = "transcription"
_MISSING: Final = object()
_APPENDS: Final = (b'{"type":"input_audio_buffer.append"', b'{"type": "input_audio_buffer.append"')


def to_ga(payload: bytes) -> bytes:
    """A client's payload as GA has it: the same object where nothing differs.

    What cannot be read for certain stays as it is, for the client edge to refuse.
    """
    if payload.startswith(_APPENDS):
        return payload
    try:
        frame = read_client(payload)
    except Unreadable:
        return payload
    translate = _CLIENT.get(frame.type)
    return payload if translate is None or frame.duplicate is not None else encode(translate(decode(payload)))


def from_ga(payload: bytes) -> bytes | None:
    """A server's payload as the beta had it, the same object where nothing differs; None for one it had
    nothing for (see DROPPED)."""
    kind = peek_server_type(payload)
    if kind in DROPPED:
        return None
    translate = _SERVER.get(kind)
    if translate is None:
        name = RENAMED.get(kind)
        return payload if name is None else with_server_type(payload, name)
    try:
        data = decode(payload)
    except Unreadable:
        return payload
    return encode(translate({**data, "type": RENAMED.get(kind, kind)}))


def session_to_ga(session: Json, kind: str = "realtime") -> Json:
    """A session object, or a partial one, of the given type unless it says which it is."""
    session = _moved_to_ga(session, _SESSION)
    if kind == _TRANSCRIPTION:
        session.pop("output_modalities", None)  # it has none to choose from
    return {"type": kind, **session}


def session_from_ga(session: Json) -> Json:
    """A session object as the beta had it: flat, and without its type."""
    return {key: value for key, value in _moved_from_ga(session, _SESSION).items() if key != "type"}


def param_from_ga(param: str) -> str:
    """The field that an error blames: `session.audio.input.format.type` is `session.input_audio_format`."""
    for root, table in (("session.", _SESSION), ("response.", _REQUEST)):
        for key, path in table:
            rest = param.removeprefix(root + path)
            if rest != param and (not rest or rest[0] in ".["):
                return root + key + ("" if key.endswith("_format") else rest)
    return param


def _update(data: Json, kind: str = "realtime") -> Json:
    session = data.get("session")
    if isinstance(session, dict):
        session = session_to_ga(session, kind)
    return {**data, "type": Client.SESSION_UPDATE, "session": session}


def _create(data: Json) -> Json:
    response = data.get("response")
    if not isinstance(response, dict):
        return data
    response = _moved_to_ga(response, _REQUEST)
    if isinstance(items := response.get("input"), list):
        response["input"] = [_item(item, _CONTENT) for item in items]
    return {**data, "response": response}


def _error(data: Json) -> Json:
    error = data.get("error")
    if not isinstance(error, dict) or not isinstance(param := error.get("param"), str):
        return data
    named = param_from_ga(param)
    message = error.get("message")
    if isinstance(message, str):
        message = message.replace(param, named)
    return {**data, "error": {**error, "param": named, "message": message}}


def _told_session(data: Json) -> Json:
    session = data.get("session")
    if not isinstance(session, dict):
        return data
    prefix = "transcription_" if sc.session_type(session) == _TRANSCRIPTION else ""
    return {**data, "type": prefix + data["type"], "session": session_from_ga(session)}


def _told_response(data: Json) -> Json:
    response = data.get("response")
    if not isinstance(response, dict):
        return data
    response = _moved_from_ga(response, _OUTPUT)
    if isinstance(items := response.get("output"), list):
        response["output"] = [_item(item, _BETA_CONTENT) for item in items]
    return {**data, "response": response}


def _with_item(names: Mapping[str, str]) -> Callable[[Json], Json]:
    return lambda data: {**data, "item": _item(data["item"], names)} if "item" in data else data


def _told_part(data: Json) -> Json:
    return {**data, "part": _part(data["part"], _BETA_CONTENT)} if "part" in data else data


def _item(item: Any, names: Mapping[str, str]) -> Any:
    """An item with the content of the assistant's renamed; nobody else has content of these names."""
    if not isinstance(item, dict) or item.get("role") != "assistant":
        return item
    content = item.get("content")
    return (
        {**item, "content": [_part(part, names) for part in content]} if isinstance(content, list) else item
    )


def _part(part: Any, names: Mapping[str, str]) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    return {**part, "type": names[kind]} if isinstance(kind, str) and kind in names else part


def _moved_to_ga(data: Json, table: tuple[tuple[str, str], ...]) -> Json:
    paths = dict(table)
    result = {key: value for key, value in data.items() if key not in paths and key not in _GONE}
    for key, path in table:
        if key in data:
            result = sc.set_(result, path, _value_to_ga(key, data[key]))
    return result


def _moved_from_ga(data: Json, table: tuple[tuple[str, str], ...]) -> Json:
    result = data
    found: Json = {}
    for key, path in table:
        value = sc.get(data, path, _MISSING)
        if value is not _MISSING:
            result = sc.without(result, path)
            found[key] = _value_from_ga(key, value)
    for container in ("audio.input", "audio.output", "audio"):
        if sc.get(result, container) == {}:
            result = sc.without(result, container)
    return {**result, **found}


def _value_to_ga(key: str, value: Any) -> Any:
    if key == "modalities":
        return ["audio"] if isinstance(value, list) and "audio" in value else value
    if key.endswith("_format"):
        return _FORMATS.get(value, value) if isinstance(value, str) else value
    return value


def _value_from_ga(key: str, value: Any) -> Any:
    if key == "modalities":
        return ["audio", "text"] if value == ["audio"] else value
    if key.endswith("_format"):
        kind = value.get("type") if isinstance(value, dict) else None
        return _FORMAT_NAMES.get(kind, value) if isinstance(kind, str) else value
    return value


_CLIENT: Final[Mapping[str, Callable[[Json], Json]]] = {
    Client.SESSION_UPDATE: _update,
    TRANSCRIPTION_UPDATE: lambda data: _update(data, _TRANSCRIPTION),
    Client.RESPONSE_CREATE: _create,
    Client.ITEM_CREATE: _with_item(_CONTENT),
}
_SERVER: Final[Mapping[str, Callable[[Json], Json]]] = {
    Server.ERROR: _error,
    Server.SESSION_CREATED: _told_session,
    Server.SESSION_UPDATED: _told_session,
    Server.RESPONSE_CREATED: _told_response,
    Server.RESPONSE_DONE: _told_response,
    **{
        kind: _with_item(_BETA_CONTENT)
        for kind in (
            Server.ITEM_ADDED,
            Server.ITEM_CREATED,
            Server.ITEM_RETRIEVED,
            Server.OUTPUT_ITEM_ADDED,
            Server.OUTPUT_ITEM_DONE,
        )
    },
    Server.CONTENT_PART_ADDED: _told_part,
    Server.CONTENT_PART_DONE: _told_part,
}
