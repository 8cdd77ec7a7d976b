"""Tools: what the stages of a session offer, and which of them answers a call."""

from typing import TYPE_CHECKING

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.tools import Tool, ToolCall

if TYPE_CHECKING:
    from rtpipe.session.session import Session


async def offered_tools(session: "Session") -> list[Tool]:
    """What all ``tools`` hooks offer, in chain order."""
    tools: list[Tool] = []
    for call in session.hook_calls("tools"):
        try:
            offered = await session.guard.call(call, session.view(call.stage))
            if not isinstance(offered, list | tuple) or not all(isinstance(each, Tool) for each in offered):
                raise session.guard.nonsense(call, offered)
        except Refused:
            session.guard.refused(call)
            session.stage_failed(call)
        except HookFailed:
            session.stage_failed(call)
        else:
            tools += offered
    return tools


async def answer_tool(session: "Session", tool_call: ToolCall, timeout_s: float) -> str | None:
    """The first answer that is not None. Raises ``HookFailed``."""
    for call in session.hook_calls("tool_call"):
        try:
            answer = await session.guard.call(call, session.view(call.stage), tool_call, limit_s=timeout_s)
        except Refused:
            raise session.guard.refused(call) from None
        if answer is None:
            continue
        if not isinstance(answer, str):
            raise session.guard.nonsense(call, answer)
        return answer
    return None
