"""Tools that plugins offer to the model."""

from typing import Any

import msgspec


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One function: *parameters* is its JSON Schema, *timeout_s* what a call may take."""

    name: str
    description: str
    parameters: dict[str, Any]
    timeout_s: float = 5.0


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """The model's wish: *arguments* is the JSON text as the model wrote it."""

    call_id: str
    name: str
    arguments: str
