"""Tools that plugins offer to the model."""

from typing import Any, Literal

import msgspec

Late = Literal["drop", "offer"]
Retry = Literal["now", "later", "no"]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One function, and what whoever dispatches its calls may do with them.

    ``parameters`` is its JSON Schema, empty where it has none. ``timeout_s`` is how long the caller waits
    for an answer. ``cancellable``: a call may be cancelled in the middle, when the caller speaks, hangs up
    or has waited too long; the task that awaits ``tool_call`` is cancelled then. ``confirm``: ask the caller
    before a call runs. ``late``: what comes of an answer after ``timeout_s``. ``cache_ttl_s``: how long an
    answer is good for equal arguments. ``mask``: fields of the arguments that belong in no log, fact or
    trace, as dotted paths (``card.number``).
    """

    name: str
    description: str
    parameters: dict[str, Any]
    timeout_s: float = 5.0
    cancellable: bool = False
    confirm: bool = False
    late: Late = "drop"
    cache_ttl_s: float = 0.0
    mask: tuple[str, ...] = ()


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """The model's wish: *arguments* is the JSON text as the model wrote it."""

    call_id: str
    name: str
    arguments: str


def tool_error(message: str, retry: Retry = "no") -> str:
    """What a ``tool_call`` hook returns to tell the model that it failed, in words that may be spoken.

    *retry* is whether calling again may help. Whatever a hook raises instead is kept from the model.
    """
    return msgspec.json.encode({"status": "error", "error": message, "retry": retry}).decode()
