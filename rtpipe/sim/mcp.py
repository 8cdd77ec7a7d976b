"""Tools of MCP servers, which are only pretended: no server is ever contacted.

A server offers the tools that `allowed_tools` names, or one called `echo`. A server whose host ends in
`.invalid` (reserved by RFC 2606, so that it never is one) cannot be reached.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from .conversation import Item
from .state import State

_TOOLS_WITHOUT_A_CHOICE = ("echo",)


class McpTool(NamedTuple):
    server_label: str
    name: str
    needs_approval: bool


class Mcp:
    def __init__(self, state: State) -> None:
        self._state = state
        self._listed: dict[str, dict[str, Any]] = {}  # by server_label, as declared when they were listed

    async def list_tools(self, declared: list[dict[str, Any]]) -> None:
        """Put the tools of each server that is new, or declared anew, into the conversation."""
        for tool in declared:
            if tool["type"] == "mcp" and self._listed.get(tool["server_label"]) != tool:
                self._listed[tool["server_label"]] = tool
                await self._list(tool)

    async def _list(self, tool: dict[str, Any]) -> None:
        item = Item(
            {
                "id": self._state.ids.new("item"),
                "type": "mcp_list_tools",
                "server_label": tool["server_label"],
                "tools": [],
            }
        )
        previous = self._state.conversation.append(item)
        await self._state.emit(
            {"type": "conversation.item.added", "previous_item_id": previous, "item": item.view()},
            {"type": "mcp_list_tools.in_progress", "item_id": item.id},
        )
        if not _reachable(tool):
            await self._state.emit({"type": "mcp_list_tools.failed", "item_id": item.id})
            return
        item.wire["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in _names(tool)]
        await self._state.emit(
            {"type": "mcp_list_tools.completed", "item_id": item.id},
            {"type": "conversation.item.done", "previous_item_id": previous, "item": item.view()},
        )


def mcp_tools(declared: list[dict[str, Any]]) -> dict[str, McpTool]:
    """The tools of the declared servers that can be reached, by name; of two of one name, the first."""
    tools: dict[str, McpTool] = {}
    for tool in declared:
        if tool["type"] == "mcp" and _reachable(tool):
            for name in _names(tool):
                tools.setdefault(name, McpTool(tool["server_label"], name, _needs_approval(tool, name)))
    return tools


def run_tool(name: str, arguments: str) -> dict[str, Any]:
    """What the pretended tool gives back: an `output`, or an `error` where the arguments ask for one."""
    try:
        asked = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        asked = None
    if isinstance(asked, dict) and "fail" in asked:
        return {"error": {"type": "tool_execution_error", "message": str(asked["fail"])}}
    return {"output": f"{name} was called with {arguments}"}


def _reachable(tool: dict[str, Any]) -> bool:
    host = urlsplit(tool.get("server_url") or "").hostname or ""
    return not host.endswith(".invalid")


def _names(tool: dict[str, Any]) -> tuple[str, ...]:
    return _filtered(tool.get("allowed_tools")) or _TOOLS_WITHOUT_A_CHOICE


def _needs_approval(tool: dict[str, Any], name: str) -> bool:
    """ "always" is the default; an object names the tools that need it always and never."""
    policy = tool.get("require_approval") or "always"
    if isinstance(policy, dict):
        return name not in _filtered(policy.get("never"))
    return policy == "always"


def _filtered(names: list[str] | dict[str, Any] | None) -> tuple[str, ...]:
    return tuple((names.get("tool_names") or ()) if isinstance(names, dict) else names or ())
