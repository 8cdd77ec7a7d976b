"""What the dispatcher sends, and reads of what others declare."""

import re
from typing import Any

from rtpipe import Event, Json, Tool
from rtpipe.protocol.catalogue import Client
from rtpipe_tool_dispatcher.arguments import NO_ARGUMENTS

FILLER = "rtpipe_filler"
"""The metadata key of a "hold on", which clients see too."""
_FILLER_TOKENS = 300
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def is_name(name: str) -> bool:
    """Whether a function may be called so upstream."""
    return _NAME.fullmatch(name) is not None


def tool_names(tools: Any) -> set[str]:
    """The names of the functions in a list of tools, whatever else is in it."""
    found = tools if isinstance(tools, list) else []
    return {each["name"] for each in found if isinstance(each, dict) and isinstance(each.get("name"), str)}


def declaration(tool: Tool) -> Json:
    """A tool as a session's ``tools`` lists it."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or NO_ARGUMENTS,
    }


def output(item_id: str, call_id: str, envelope: str) -> Event:
    """The answer to a call."""
    item = {"id": item_id, "type": "function_call_output", "call_id": call_id, "output": envelope}
    return Event({"type": Client.ITEM_CREATE, "item": item})


def message(item_id: str, name: str, envelope: str) -> Event:
    """An answer where an output cannot be: a call has one output, and a new upstream knows no calls."""
    text = f"Result of an earlier call of the function {name}: {envelope}"
    content = [{"type": "input_text", "text": text}]
    item = {"id": item_id, "type": "message", "role": "system", "content": content}
    return Event({"type": Client.ITEM_CREATE, "item": item})


def answer(tool_choice: Any, *, may_call: bool) -> Event:
    """A ``response.create`` that takes up the results.

    A choice that forces a call would force another one here, for ever.
    """
    if not may_call:
        return Event({"type": Client.RESPONSE_CREATE, "response": {"tool_choice": "none"}})
    if tool_choice in (None, "auto", "none"):
        return Event({"type": Client.RESPONSE_CREATE})
    return Event({"type": Client.RESPONSE_CREATE, "response": {"tool_choice": "auto"}})


def hold_on(instructions: str) -> Event:
    """A ``response.create`` for a few words that stay out of the conversation, though they know it."""
    response = {
        "conversation": "none",
        "instructions": instructions,
        "tool_choice": "none",
        "max_output_tokens": _FILLER_TOKENS,
        "metadata": {FILLER: "yes"},
    }
    return Event({"type": Client.RESPONSE_CREATE, "response": response})


def cancel(response_id: str) -> Event:
    """Out-of-band responses are cancelled by their id and in no other way."""
    return Event({"type": Client.RESPONSE_CANCEL, "response_id": response_id})
