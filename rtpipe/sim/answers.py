"""What the simulated model says, and which tools it calls: a plain function of what it was told last."""

from __future__ import annotations

import itertools
import json  # for raw_decode alone: the arguments end where their JSON does, and msgspec reads no prefixes
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from .conversation import Item

_CALL = re.compile(r"\bcall(!?)\s+([A-Za-z0-9_-]+)\s*")
# No schema of a few lines may ask for gigabytes.
_DEEPEST_EXAMPLE = 8
_LONGEST_EXAMPLE = 4


class Call(NamedTuple):
    name: str
    arguments: str


class Settings(NamedTuple):
    """What of the session, or of the response.create that overrides it, decides an answer."""

    instructions: str
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]


def answer(context: Sequence[Item], settings: Settings) -> str | list[Call]:
    """Something to say, or the calls to make."""
    new = _new_items(context)
    outputs = [item.wire["output"] for item in new if item.speaker == "function_call_output"]
    heard = [item for item in new if item.speaker == "user"]
    texts = [text for item in heard for text in item.texts()]
    if not outputs and (calls := _calls(texts[-1] if texts else "", settings)):
        return calls
    sentences = [f"The tool answered: {'; '.join(outputs)}"] if outputs else []
    if texts:
        sentences.append(f"You said: {texts[-1]}")
    sentences += [
        f"I see a {image.kind} image, {image.width} x {image.height}."
        for item in heard
        for image in item.images.values()
    ]
    if audio_ms := sum(item.audio_ms() for item in heard):
        sentences.append(f"I heard {audio_ms / 1000:.1f} seconds of audio.")
    return " ".join(sentences) or "I am the simulated model, and I have nothing to answer yet."


def _new_items(context: Sequence[Item]) -> list[Item]:
    """The items since the model last spoke or called, oldest first."""
    mine = ("assistant", "function_call")
    return list(itertools.takewhile(lambda item: item.speaker not in mine, reversed(context)))[::-1]


def _calls(text: str, settings: Settings) -> list[Call]:
    if settings.tool_choice == "none":
        return []
    tools = {tool["name"]: tool for tool in settings.tools if tool["type"] == "function"}
    calls = []
    for found in _CALL.finditer(text):
        unchecked, name = found.groups()
        if unchecked or name in tools:
            calls.append(Call(name, _given(text, found.end()) or _made_up(tools.get(name))))
    if not calls and (name := _forced(settings.tool_choice, tools)):
        calls.append(Call(name, _made_up(tools.get(name))))
    return calls


def _forced(tool_choice: str | dict[str, Any], tools: dict[str, Any]) -> str | None:
    if isinstance(tool_choice, dict):
        return tool_choice["name"] if tool_choice["type"] == "function" else None
    return next(iter(tools), None) if tool_choice == "required" else None


def _given(text: str, start: int) -> str | None:
    """The JSON object that stands in the text after the name, exactly as written."""
    if not text.startswith("{", start):
        return None
    try:
        end = json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None
    return text[start:end]


def _made_up(tool: dict[str, Any] | None) -> str:
    example = _example((tool or {}).get("parameters") or {"type": "object"}, _DEEPEST_EXAMPLE)
    return msgspec.json.encode(example).decode()


def _example(schema: Any, depth: int) -> Any:
    """The smallest value that a tool's JSON schema asks for: what is required, nothing else."""
    if not isinstance(schema, dict) or not depth:
        return {}
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if isinstance(enum := schema.get("enum"), list) and enum:
        return enum[0]
    match schema.get("type", "object"):
        case "string":
            return "text"
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            fewest = schema.get("minItems")
            length = min(fewest, _LONGEST_EXAMPLE) if isinstance(fewest, int) else 0
            return [_example(schema.get("items"), depth - 1)] * length
        case "null":
            return None
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: _example(properties.get(name), depth - 1) for name in required if isinstance(name, str)}
