"""The Realtime session object (the `session` of `session.update` and `session.updated`): pure functions over
it.

A *path* is dotted (`audio.input.turn_detection`). A *leaf* is what an update replaces as a whole: every key
of the object except the three containers `audio`, `audio.input` and `audio.output`, which merge key by key.
Updates are partial: what is absent stays; `null`, `""` and `[]` are values like any other, and clear a leaf.
Source: openai-python 3.54.0 `RealtimeSessionCreateRequest`, OpenAI's realtime guide.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from rtpipe.protocol.catalogue import Json

CONTAINERS: Final = frozenset({"audio", "audio.input", "audio.output"})

READ_ONLY: Final = frozenset({"id", "object", "expires_at"})
"""Fields that only the upstream writes. It refuses an update that carries an unknown field as a whole, so
these must not be sent back."""

DETECTOR_PATH: Final = "audio.input.turn_detection"
TRANSCRIPTION_PATH: Final = "audio.input.transcription"

DEFAULT_DETECTOR: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
)
"""What detects turns in a session whose configuration does not name a detector."""

_NOT_ASKED: Final = READ_ONLY | {"type", "model", "client_secret"}
_BYTES_PER_SECOND: Final = {"audio/pcm": 24_000 * 2, "audio/pcmu": 8_000, "audio/pcma": 8_000}
_MISSING: Final = object()


def merge(base: Json, update: Json) -> Json:
    """`base` after a partial `update`, as a new object.

    A container that is not an object in the update (`"audio": null`) says nothing about the leaves in it and
    changes nothing; that keeps `merge(merge(a, b), c) == merge(a, merge(b, c))`.
    """
    return _merge(base, update, "")


def _merge(base: Json, update: Json, prefix: str) -> Json:
    result = dict(base)
    for key, value in update.items():
        if prefix + key not in CONTAINERS:
            result[key] = value
        elif isinstance(value, dict):
            result[key] = _merge(_object(base.get(key)), value, f"{prefix}{key}.")
    return result


def get(config: Json, path: str, default: Any = None) -> Any:
    """The value at a path, or `default` where there is none. A `null` that is there is returned as None."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


def set_(config: Json, path: str, value: Any) -> Json:
    """A new object with the value at the path; objects on the way are made where they are missing."""
    key, _, rest = path.partition(".")
    return {**config, key: set_(_object(config.get(key)), rest, value) if rest else value}


def without(config: Json, path: str) -> Json:
    """A new object without the path. Containers stay, even when empty; a path that is not there is no
    error."""
    key, _, rest = path.partition(".")
    if not rest:
        return {name: value for name, value in config.items() if name != key}
    inner = config.get(key)
    return {**config, key: without(inner, rest)} if isinstance(inner, dict) else dict(config)


def pick(config: Json, paths: Iterable[str]) -> Json:
    """A new object with only these paths; those that are not there are left out."""
    result: Json = {}
    for path in paths:
        value = get(config, path, _MISSING)
        if value is not _MISSING:
            result = set_(result, path, value)
    return result


def changed_paths(before: Json, after: Json) -> list[str]:
    """The leaves that differ: changed or added ones in the order of `after`, then those that are gone."""
    return _changed(before, after, "")


def _changed(before: Json, after: Json, prefix: str) -> list[str]:
    paths: list[str] = []
    for key in [*after, *(key for key in before if key not in after)]:
        path = prefix + key
        old, new = before.get(key, _MISSING), after.get(key, _MISSING)
        if path in CONTAINERS:
            paths += _changed(_object(old), _object(new), path + ".")
        elif old is _MISSING or new is _MISSING or old != new:
            paths.append(path)
    return paths


def param_to_path(param: str | None) -> str | None:
    """The path an error's `param` blames: `session.tools[0].name` is `tools`,
    `session.audio.input.turn_detection.x` is `audio.input.turn_detection`. A container is returned where
    nothing deeper is named; None where the session object as a whole, or something else, is meant.
    """
    root, _, rest = (param or "").replace("[", ".").partition(".")
    if root != "session" or not rest:
        return None
    keys = rest.split(".")
    length = 1
    while length < len(keys) and ".".join(keys[:length]) in CONTAINERS:
        length += 1
    return ".".join(keys[:length])


def session_type(config: Json) -> str:
    """`realtime` or `transcription`; an object that does not say is a realtime one."""
    value = config.get("type")
    return value if isinstance(value, str) else "realtime"


def model(config: Json) -> str | None:
    """The model a session object names."""
    value = config.get("model")
    return value if isinstance(value, str) else None


def as_update(session: Mapping[str, Any]) -> Json:
    """What of a whole session object a client may ask for in an update: without its type and model, which are
    settled when it connects, and without what the upstream writes."""
    return {key: value for key, value in session.items() if key not in _NOT_ASKED}


def has_odd_container(update: Json) -> bool:
    """Whether a container is something else than an object, such as `"audio": null`. `merge` takes that for
    nothing; what an upstream makes of it is for the upstream to say."""
    found = (get(update, path, {}) for path in CONTAINERS)
    return any(not isinstance(value, dict) for value in found)


def detector(config: Json) -> Json | None:
    """What detects turns: a new object, the default where none is named, or None when detection is off
    (`null`)."""
    value = get(config, DETECTOR_PATH, DEFAULT_DETECTOR)
    return dict(value) if isinstance(value, Mapping) else None


def transcribes(config: Json) -> bool:
    """Whether the upstream writes down what the caller says."""
    return bool(get(config, TRANSCRIPTION_PATH))


def creates_responses(config: Json) -> bool:
    """Whether the end of a detected turn makes the upstream answer by itself. Transcription sessions never
    do."""
    found = detector(config)
    return (
        found is not None and session_type(config) == "realtime" and found.get("create_response") is not False
    )


def with_create_response(config: Json, on: bool) -> Json:
    """The configuration with the same detector, answering turns by itself or not.

    The same object where it is so already, where there is no detector, and for transcription sessions.
    """
    found = detector(config)
    if found is None or session_type(config) != "realtime" or creates_responses(config) == on:
        return config
    return set_(config, DETECTOR_PATH, {**found, "create_response": on})


def audio_bytes_per_second(config: Json) -> int:
    """Bytes of one second of the model's audio, before base64: 48000 for PCM (24 kHz, 16 bit, mono; the
    default), 8000 for both G.711 formats."""
    return _BYTES_PER_SECOND.get(str(get(config, "audio.output.format.type")), _BYTES_PER_SECOND["audio/pcm"])


def input_bytes_per_second(config: Json) -> int:
    """The same for the caller's audio."""
    return _BYTES_PER_SECOND.get(str(get(config, "audio.input.format.type")), _BYTES_PER_SECOND["audio/pcm"])


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
