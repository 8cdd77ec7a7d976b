"""Bytes to events and back: what a payload provably is, before anybody judges it.

A frame leaves rtpipe as it came, so a plugin must not read something else in it than the upstream will. JSON
leaves room for that: a key that stands twice, a key spelt with escapes, numbers one parser takes and the next
does not. So a client frame is only read if every strict parser (RFC 8259) reads the same; everything else is
`Unreadable`.

Two parsers, because each can do what the other cannot: msgspec is fast and strict (no NaN, no infinite
numbers, no lone surrogates, no invalid UTF-8), and the standard library's `object_pairs_hook` shows duplicate
keys.
"""

import json
import re
from collections import Counter
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from rtpipe.protocol.catalogue import SERVER_TYPES, Client, Json

MAX_DEPTH: Final = 256
"""Levels of nesting a client frame may have. Far below the interpreter's own limit, so that what was accepted
can be compared, copied and encoded by whoever holds it, however deep in the stack."""
_MAX_PARTS: Final = 20_000
"""Values a client frame may have, keys aside. Each takes a microsecond to read, in which nobody else is
served; a hundred functions of fifty parameters have as many."""


class Unreadable(ValueError):
    """A payload that is refused instead of guessed at.

    code: `invalid_json` (not JSON as RFC 8259 has it, or beyond a limit), `invalid_type` (no object with a
    string `type`), `ambiguous_type` (two top-level `type` keys), `duplicate_key` (two top-level `event_id`
    keys). message: one sentence for whoever sent it: what is wrong, what to do.
    event_id: the frame's own `event_id`, where one could be read for certain.
    """

    def __init__(self, code: str, message: str, event_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.event_id = event_id


class ClientFrame(NamedTuple):
    """What is proven about a client frame."""

    type: str
    event_id: str | None
    """None also where it is not a string; what that means is for the upstream to say."""
    duplicate: str | None
    """The path of a key that stands twice in one object (`session.tools[0].name`). Parsers disagree on which
    of the two counts, so such a frame must not be judged: refuse it if anybody reads more of it than its
    type."""


# The heads and tails of an audio append in the orders and spacings that clients write. A head ends behind the
# quote that opens the audio, a tail begins with the one that closes it. No key or value in them contains an
# escape.
_EVENT_ID: Final = rb'"event_id"\s*:\s*"([^"\\]*)"'
_TYPE: Final = rb'"type"\s*:\s*"input_audio_buffer\.append"'
_TYPE_FIRST: Final = re.compile(
    rb"\s*\{\s*(?:" + _EVENT_ID + rb"\s*,\s*)?" + _TYPE + rb'\s*,\s*"audio"\s*:\s*"'
)
_AUDIO_FIRST: Final = re.compile(rb'\s*\{\s*"audio"\s*:\s*"')
_END: Final = re.compile(rb'"\s*(?:,\s*' + _EVENT_ID + rb"\s*)?\}\s*")
_TYPE_AND_END: Final = re.compile(rb'"\s*,\s*' + _TYPE + rb"\s*(?:,\s*" + _EVENT_ID + rb"\s*)?\}\s*")

# What JSON.stringify and json.dumps write, which is nearly every frame: the same proof without a regular
# expression.
_COMMON_HEADS: Final = (
    b'{"type":"input_audio_buffer.append","audio":"',
    b'{"type": "input_audio_buffer.append", "audio": "',
)

_APPEND: Final = ClientFrame(Client.AUDIO_APPEND, None, None)

_strict: Final = msgspec.json.Decoder().decode


def read_client(payload: bytes) -> ClientFrame:
    """Prove that a client frame is an object with exactly one `type`, a string; raises Unreadable otherwise.

    Cheap for audio appends: behind a known head, the next quote must begin a known tail. Then the keys of the
    object are exactly those of head and tail, and msgspec's scan suffices. (Were that quote escaped, the
    tail's own quotes would be out of step and the text no JSON; so a backslash needs no look of its own.)
    """
    for start in _COMMON_HEADS:
        if payload.startswith(start):
            if payload.find(b'"', len(start)) == len(payload) - 2:
                _parse(payload)
                return _APPEND
            break
    head = _TYPE_FIRST.match(payload)
    tail = _END
    if head is None:
        head = _AUDIO_FIRST.match(payload)
        tail = _TYPE_AND_END
    if head is not None:
        close = payload.find(b'"', head.end())
        end = tail.fullmatch(payload, close) if close > 0 else None
        if end is not None:
            ids = [found for found in (*head.groups(), *end.groups()) if found is not None]
            if len(ids) < 2:
                _parse(payload)
                return ClientFrame(Client.AUDIO_APPEND, ids[0].decode() if ids else None, None)
    return _read_in_full(payload)


def _read_in_full(payload: bytes) -> ClientFrame:
    if _has_too_many_parts(payload):
        raise Unreadable("invalid_json", f"The message has over {_MAX_PARTS} values; send a smaller one.")
    data = _parse(payload)
    if not isinstance(data, dict):
        raise Unreadable("invalid_type", "An event must be a JSON object; send one object a message.")
    _check_depth(payload, data)
    duplicate, twice = _duplicates(payload)
    event_id = data.get("event_id")
    if not isinstance(event_id, str) or "event_id" in twice:
        event_id = None
    if "type" in twice:
        raise Unreadable("ambiguous_type", "The event has two 'type' keys; send exactly one.", event_id)
    if "event_id" in twice:
        raise Unreadable("duplicate_key", "The event has two 'event_id' keys; send at most one.")
    if not isinstance(data.get("type"), str):
        raise Unreadable("invalid_type", "The event has no 'type' that is a string; add one.", event_id)
    return ClientFrame(data["type"], event_id, duplicate)


def peek_server_type(payload: bytes) -> str:
    """The type of a server event, read from its head where it stands there, else by decoding all of it.

    "" where the payload is no JSON object with a string type. The upstream is trusted not to be ambiguous.
    """
    if payload.startswith(b'{"type":"'):
        name = payload[9 : payload.find(b'"', 9)]
    else:
        match = _SERVER_HEAD.match(payload)
        name = match[1] if match is not None else b""
    known = _SERVER_NAMES.get(name)
    if known is not None:
        return known
    try:
        found = decode(payload).get("type")
    except Unreadable:
        return ""
    return found if isinstance(found, str) else ""


def with_server_type(payload: bytes, name: str) -> bytes:
    """A server event under another type: decoded only where its type does not stand in its head."""
    match = _SERVER_HEAD.match(payload)
    if match is None:
        return encode({**decode(payload), "type": name})
    return b"%b%b%b" % (payload[: match.start(1)], name.encode(), payload[match.end(1) :])


_SERVER_HEAD: Final = re.compile(rb'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([^"\\]*)"')
_SERVER_NAMES: Final = {name.encode(): name for name in SERVER_TYPES}


def decode(payload: bytes) -> Json:
    """A payload as an object; raises Unreadable for whatever is not one. Of duplicate keys the last
    counts."""
    data = _parse(payload)
    if not isinstance(data, dict):
        raise Unreadable("invalid_type", "An event must be a JSON object; send one object a message.")
    return data


def encode(data: Json) -> bytes:
    """An event as a payload: compact UTF-8 JSON.

    Raises what msgspec raises for what JSON cannot say: TypeError, and UnicodeEncodeError for a lone
    surrogate.
    """
    return msgspec.json.encode(data)


def _parse(payload: bytes) -> Any:
    try:
        return _strict(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse(payload, f"The message is not valid JSON ({error}); send one JSON object, encoded as UTF-8.")
    except (RecursionError, MemoryError):
        _refuse(payload, "The message is nested too deep or too large to read; send a smaller one.")


def _refuse(payload: bytes, message: str) -> NoReturn:
    """Raise `invalid_json`, with the event_id if a lenient parser (NaN, surrogates) can still find one."""
    try:
        event_id = json.loads(payload)["event_id"]
        event_id.encode()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError):
        event_id = None
    raise Unreadable("invalid_json", message, event_id if isinstance(event_id, str) else None) from None


def _has_too_many_parts(payload: bytes) -> bool:
    """Counted before anything is made of them; of what is no JSON, more or less."""
    if _parts(payload) <= _MAX_PARTS:
        return False  # even with what stands in strings
    bare = payload.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * _MAX_PARTS:
        return True
    return _parts(b"".join(bare.split(b'"')[::2])) > _MAX_PARTS


def _parts(text: bytes) -> int:
    """The values of a JSON text, keys aside, and what looks like some in its strings."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _check_depth(payload: bytes, data: Json) -> None:
    if payload.count(b"{") + payload.count(b"[") <= MAX_DEPTH:
        return
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            below += value.values() if isinstance(value, dict) else value
        level = [value for value in below if isinstance(value, (dict, list))]
        if not level:
            return
    event_id = data.get("event_id")
    raise Unreadable(
        "invalid_json",
        f"The message is nested more than {MAX_DEPTH} levels deep; send a flatter one.",
        event_id if isinstance(event_id, str) else None,
    )


class _Twice(Exception):
    """Some object of the text has a key twice."""


class _Pairs(list[tuple[str, Any]]):
    """An object with all its keys, duplicates too."""


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


_UNIQUE: Final = json.JSONDecoder(object_pairs_hook=_unique)
_PAIRS: Final = json.JSONDecoder(object_pairs_hook=_Pairs)


def _duplicates(payload: bytes) -> tuple[str | None, set[str]]:
    """The path of the first duplicate key, and the top-level keys that stand twice, of a payload proven
    valid."""
    text = payload.decode()
    try:
        _UNIQUE.decode(text)
    except _Twice:
        # Rare, so only now the slow way that keeps every pair.
        top = _PAIRS.decode(text)
        keys = Counter(key for key, _ in top)
        return _first_duplicate(top), {key for key, count in keys.items() if count > 1}
    return None, set()


def _first_duplicate(top: _Pairs) -> str | None:
    waiting: list[tuple[str, Any]] = [("", top)]
    while waiting:
        path, value = waiting.pop()
        inner: list[tuple[str, Any]] = []
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, child in value:
                at = f"{path}.{key}" if path else key
                if key in seen:
                    return at
                seen.add(key)
                inner.append((at, child))
        elif isinstance(value, list):
            inner = [(f"{path}[{index}]", child) for index, child in enumerate(value)]
        waiting += reversed(inner)
    return None
