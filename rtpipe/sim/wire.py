"""Reading what a client sends, and refusing what the service would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from .errors import ClientError, invalid_value
from .shapes import CLIENT_EVENTS

# What is echoed stands deeper than it came, and must still be within what can be written.
DEEPEST = 200

_FIELD = re.compile(
    r"Object (contains unknown|missing required) field `(.*?)`(?: - at `\$\.?(.*)`)?$", re.DOTALL
)
_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`$", re.DOTALL)


def decode(message: str | bytes) -> dict[str, Any]:
    """The JSON object a client sent, not yet judged."""
    try:
        event = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ClientError("invalid_json", f"Invalid JSON: {error}") from None
    if not isinstance(event, dict):
        raise ClientError("invalid_json", "Invalid JSON: expected an object.")
    if _nesting(event) > DEEPEST:
        raise ClientError("invalid_json", "Invalid JSON: nested too deeply.")
    return event


def _nesting(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return depth


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def check(event: dict[str, Any]) -> None:
    """Raise the ClientError the service answers a malformed event with."""
    if "type" not in event:
        raise ClientError("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    shape = CLIENT_EVENTS.get(event["type"]) if isinstance(event["type"], str) else None
    if shape is None:
        raise invalid_value("type", event["type"], CLIENT_EVENTS)
    try:
        msgspec.convert(event, shape)
    except msgspec.ValidationError as error:
        raise refusal(str(error)) from None


def refusal(problem: str) -> ClientError:
    """The error for what msgspec found wrong."""
    if found := _FIELD.match(problem):
        kind, field, place = found.groups()
        param = f"{place}.{field}" if place else field
        if kind == "missing required":
            return ClientError("missing_required_parameter", f"Missing required parameter: '{param}'.", param)
        return ClientError("unknown_parameter", f"Unknown parameter: '{param}'.", param)
    placed = _PLACE.match(problem)
    message, param = placed.groups() if placed else (problem, None)
    return ClientError("invalid_value", f"Invalid value for '{param}': {message}.", param)
