"""The arguments of a call: read, checked against the tool's schema, made comparable, masked."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema_rs
import msgspec

from rtpipe import Json, Tool

MASKED = "***"
NO_ARGUMENTS: Json = {"type": "object", "properties": {}}
_SCHEMAS_KEPT = 500
_PROBLEMS_TOLD = 3
_TEXT_CHARS = 500


def parse(text: str) -> Json:
    """The arguments as an object; no text means none. Raises ``ValueError`` for anything else."""
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError("not JSON") from exc
    if not isinstance(arguments, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 — a caller's mistake, not a programmer's
    return arguments


def canonical(name: str, arguments: Json) -> str:
    """The same text for every way to write the same call."""
    return msgspec.json.encode([name, arguments], order="sorted").decode()


class Schemas:
    """Compiled validators, by the schema they were made of. References are never fetched."""

    def __init__(self) -> None:
        self._compiled: dict[bytes, jsonschema_rs.Validator | None] = {}

    def fault(self, tool: Tool) -> str | None:
        """What is wrong with a tool's schema, in one line."""
        try:
            if tool.parameters.get("type", "object") != "object":
                return "its schema must be of type object"
            self._compile(tool)
        except (ValueError, TypeError, RecursionError) as exc:
            return f"its schema is no valid JSON Schema ({str(exc).splitlines()[0][:120]})"
        return None

    def problems(self, tool: Tool, arguments: Json) -> str | None:
        """What the model has to ask the caller for again; None when the arguments are well."""
        validator = self._compile(tool)
        if validator is None:
            return None
        found: dict[str, None] = {}
        for error in validator.iter_errors(arguments):
            found[_sentence(error)] = None
            if len(found) == _PROBLEMS_TOLD:
                break
        return " ".join(found) or None

    def _compile(self, tool: Tool) -> jsonschema_rs.Validator | None:
        if not tool.parameters:
            return None
        key = msgspec.json.encode(tool.parameters)
        if key not in self._compiled:
            if len(self._compiled) >= _SCHEMAS_KEPT:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[key] = jsonschema_rs.validator_for(tool.parameters, mask=MASKED, offline=True)
        return self._compiled[key]


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    # The messages are made with a mask in the place of values: what callers said stays out of them.
    kind, path = error.kind, [str(step) for step in error.instance_path]
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        missing = ".".join([*path, str(kind.property)])
        return f'The argument "{missing}" is missing: ask the caller for it, then call again.'
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
        unknown = ", ".join(f'"{".".join([*path, str(name)])}"' for name in kind.unexpected)
        return f"The function does not take {unknown}: call again without."
    expected = error.message.replace(f"{MASKED} ", "it ", 1)[:200]
    return f'The argument "{".".join(path)}" does not fit, {expected}: ask the caller for it again.'


def masked(arguments: Json, mask: Sequence[str]) -> Json:
    """The arguments with ``***`` in the place of masked fields; lists on the way are looked through."""
    for path in mask:
        arguments = _replace(arguments, path.split("."))
    return arguments


def shown(arguments: Json, mask: Sequence[str]) -> str:
    """The masked arguments as a text of bounded length."""
    return msgspec.json.encode(masked(arguments, mask)).decode()[:_TEXT_CHARS]


def scrubbed(text: str, arguments: Json, mask: Sequence[str]) -> str:
    """A text without the values of masked fields, which an error may have quoted."""
    for value in sorted(set(_values(arguments, mask)), key=len, reverse=True):
        text = re.sub(re.escape(value), MASKED, text)
    return text


def _values(arguments: Json, mask: Sequence[str]) -> Iterator[str]:
    for path in mask:
        for value in _found(arguments, path.split(".")):
            for leaf in _leaves(value):
                # As it is, and as the log writes it.
                yield from {leaf, ascii(leaf)[1:-1]} - {""}


def _found(value: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _found(each, path)
    elif isinstance(value, dict) and path[0] in value:
        yield from _found(value[path[0]], path[1:])


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _replace(value: Any, path: list[str]) -> Any:
    if not path:
        return MASKED
    if isinstance(value, list):
        return [_replace(each, path) for each in value]
    if isinstance(value, dict) and path[0] in value:
        return {**value, path[0]: _replace(value[path[0]], path[1:])}
    return value
