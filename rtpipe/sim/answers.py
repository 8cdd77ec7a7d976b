"""What the simulated model says, and which tools it calls: a plain function of what it was told last."""

from __future__ import annotations

import json  # for raw_decode alone: the arguments end where their JSON does, and msgspec reads no prefixes
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from .conversation import Item
from .failures import FAILURES, Failure
from .faults import Fault
from .mcp import McpTool, mcp_tools

_CALL = re.compile(r"\bcall(!?)\s+([A-Za-z0-9_-]+)\s*")
_FAIL = re.compile(r"\bfail\s+([a-z_]+)")
_PREAMBLE = re.compile(r"\bone moment\b", re.IGNORECASE)
# No schema of a few lines may ask for gigabytes.
_DEEPEST_EXAMPLE = 8
_LONGEST_EXAMPLE = 4


class Call(NamedTuple):
    name: str
    arguments: str


class McpCall(NamedTuple):
    """`approval_request_id`: of the request that was approved, if one was needed."""

    server_label: str
    name: str
    arguments: str
    approval_request_id: str | None


class Approval(NamedTuple):
    """A request for the approval of a call."""

    server_label: str
    name: str
    arguments: str


Step = str | Call | McpCall | Approval  # a str is said


class Answer(NamedTuple):
    """One output item for each step, in this order; then, or in the midst of them, `failure`. `pauses_s`:
    before each step, if there are any. `fault`: ordered when the response begins."""

    steps: list[Step]
    failure: Failure | None = None
    pauses_s: Sequence[float] = ()
    fault: Fault | None = None


class Settings(NamedTuple):
    """What of the session, or of the response.create that overrides it, decides an answer."""

    instructions: str
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool


def answer(context: Sequence[Item], settings: Settings) -> Answer:
    new = _new_items(context)
    heard = [item for item in new if item.speaker == "user"]
    texts = [text for item in heard for text in item.texts()]
    last = texts[-1] if texts else ""
    results = _results(new)
    calls = [] if results else _approved(new, context) or _calls(last, settings)
    steps: list[Step] = ["One moment."] if _PREAMBLE.search(last) else []
    steps += calls or [_sentences(new, results, heard, texts)]
    found = _FAIL.search(last)
    return Answer(steps, FAILURES.get(found[1]) if found else None)


def _sentences(new: list[Item], results: list[str], heard: list[Item], texts: list[str]) -> str:
    sentences = [f"The tool answered: {'; '.join(results)}"] if results else []
    if any(item.speaker == "mcp_approval_response" and not item.wire["approve"] for item in new):
        sentences.append("The call was not approved.")
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
    """The items since the model last spoke or called, oldest first. A call of an MCP tool carries its own
    result, so it is new too; what stands before it is not."""
    mine = ("assistant", "function_call", "mcp_approval_request")
    new: list[Item] = []
    for item in reversed(context):
        called = bool(new) and new[-1].speaker == "mcp_call"
        if item.speaker in mine or (called and item.speaker != "mcp_call"):
            break
        new.append(item)
    return new[::-1]


def _results(new: list[Item]) -> list[str]:
    outputs = [item.wire for item in new if item.speaker in ("function_call_output", "mcp_call")]
    return [
        wire["output"] if wire.get("output") is not None else (wire.get("error") or {}).get("message", "")
        for wire in outputs
    ]


def _approved(new: list[Item], context: Sequence[Item]) -> list[Step]:
    requests = {item.id: item.wire for item in context if item.speaker == "mcp_approval_request"}
    granted = (
        item.wire["approval_request_id"]
        for item in new
        if item.speaker == "mcp_approval_response" and item.wire["approve"]
    )
    return [
        McpCall(wire["server_label"], wire["name"], wire["arguments"], request_id)
        for request_id in granted
        if (wire := requests.get(request_id))
    ]


def _calls(text: str, settings: Settings) -> list[Step]:
    if settings.tool_choice == "none":
        return []
    functions = {tool["name"]: tool for tool in settings.tools if tool["type"] == "function"}
    of_servers = mcp_tools(settings.tools)
    calls: list[Step] = []
    for found in _CALL.finditer(text):
        unchecked, name = found.groups()
        given = _given(text, found.end())
        if name in functions or (unchecked and name not in of_servers):
            calls.append(Call(name, given or _made_up(functions.get(name))))
        elif name in of_servers:
            calls.append(_mcp_step(of_servers[name], given or "{}"))
    if not calls:
        calls = _forced(settings.tool_choice, functions, of_servers)
    return calls if settings.parallel_tool_calls else calls[:1]


def _mcp_step(tool: McpTool, arguments: str) -> Step:
    if tool.needs_approval:
        return Approval(tool.server_label, tool.name, arguments)
    return McpCall(tool.server_label, tool.name, arguments, None)


def _forced(
    tool_choice: str | dict[str, Any], functions: dict[str, Any], of_servers: dict[str, McpTool]
) -> list[Step]:
    """The call that is made unasked: of the function or the server that was chosen, or of any."""
    if isinstance(tool_choice, dict):
        if tool_choice["type"] == "function":
            return [Call(tool_choice["name"], _made_up(functions.get(tool_choice["name"])))]
        chosen = [
            tool
            for tool in of_servers.values()
            if tool.server_label == tool_choice["server_label"]
            and tool.name == (tool_choice.get("name") or tool.name)
        ]
        return [_mcp_step(tool, "{}") for tool in chosen[:1]]
    if tool_choice != "required":
        return []
    for name, tool in functions.items():
        return [Call(name, _made_up(tool))]
    return [_mcp_step(tool, "{}") for tool in list(of_servers.values())[:1]]


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
