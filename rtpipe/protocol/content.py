"""What was said, written and shown in events, as opposed to what they are about."""

import re
from collections.abc import Callable
from typing import Any, Final

from rtpipe.protocol.catalogue import Client, Json, Server

LEFT_OUT: Final = "[…]"
"""Stands for a piece of a text."""
_PIECES = frozenset(
    {
        Server.TEXT_DELTA,
        Server.TRANSCRIPT_DELTA,
        Server.TRANSCRIPTION_DELTA,
        Server.ARGUMENTS_DELTA,
        Server.MCP_ARGUMENTS_DELTA,
    }
)
_SOUND = frozenset({Client.AUDIO_APPEND, Server.AUDIO_DELTA})
# What says which thing is meant, and of which kind. Clients may write there what they like, so it counts as
# words where it does not look like a name.
_NAMES = frozenset(
    {
        "type",
        "id",
        "object",
        "status",
        "role",
        "name",
        "model",
        "event_id",
        "item_id",
        "response_id",
        "call_id",
        "conversation_id",
        "previous_item_id",
    }
)
_NAME = re.compile(r"(?=\D*(?:\d\D*){0,12}\Z)[A-Za-z_][\w.:/-]*")
"""With at most twelve digits: more might be somebody's number."""
_CARRIED = frozenset({"audio", "image_url"})


def is_delta(kind: str) -> bool:
    """Whether an event of this type is a piece of something that is whole later, or of a stream of sound."""
    return kind.endswith(".delta") or kind == Client.AUDIO_APPEND


def is_sound(kind: str) -> bool:
    """Whether an event of this type carries sound and nothing that could be read."""
    return kind in _SOUND


def with_texts(event: Json, change: Callable[[str], str], arguments: Callable[[str, str], str]) -> Json:
    """The event with every text in it changed: by *arguments* (the tool's name, the JSON) where it is a
    call's, by *change* elsewhere.

    Sound, images and names stay as they are. A piece of a text becomes ``[…]``.
    """
    kind = event.get("type")
    if kind in _SOUND:
        return event
    if kind in _PIECES:
        return {**event, "delta": LEFT_OUT}
    return _changed(event, "", change, arguments)  # type: ignore[no-any-return]


def _changed(
    value: Any, tool: str, change: Callable[[str], str], arguments: Callable[[str, str], str]
) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(each, tool, change, arguments) for each in value]
    if not isinstance(value, dict):
        return value
    tool = str(value.get("name") or tool)
    told = {}
    for key, each in value.items():
        is_name = key in _NAMES and isinstance(each, str) and _NAME.fullmatch(each)
        if is_name or (key in _CARRIED and isinstance(each, str)):
            told[key] = each
        elif isinstance(each, str) and key == "arguments":
            told[key] = arguments(tool, each)
        else:
            told[key] = _changed(each, tool, change, arguments)
    return told
