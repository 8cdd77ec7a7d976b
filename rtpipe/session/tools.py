"""Tools: what the stages of a session and the host offer, and which of them answers a call."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.tools import Tool, ToolCall

if TYPE_CHECKING:
    from rtpipe.session.session import Session

SESSION_END: Final = "session_end"
"""The reason of the cancellation that a session's end is to its tasks."""


class HostTools(Protocol):
    """Tools that no stage of the chain offers: of the process, and the same for every session."""

    def offered_tools(self) -> Iterable[Tool]: ...

    async def answer_tool(self, session: str, principal: str, call: ToolCall, timeout_s: float) -> str | None:
        """The answer, None if there is no such tool. *session* and *principal* are ids.

        Cancelling it gives up the call. Raises ``HookFailed``.
        """
        ...


async def offered_tools(session: "Session") -> list[Tool]:
    """What the ``tools`` hooks offer in chain order, then the host. Of tools with one name, the first."""
    tools: dict[str, Tool] = {}
    for each in [*await _of_stages(session), *_of_host(session)]:
        tools.setdefault(each.name, each)
    return list(tools.values())


def _of_host(session: "Session") -> Iterable[Tool]:
    return session.host_tools.offered_tools() if session.host_tools is not None else ()


async def _of_stages(session: "Session") -> list[Tool]:
    tools: list[Tool] = []
    for call in session.stages.calls("tools"):
        try:
            offered = await session.guard.call(call, session.view(call.stage))
            if not isinstance(offered, list | tuple) or not all(isinstance(each, Tool) for each in offered):
                raise session.guard.nonsense(call, offered)
        except Refused:
            session.guard.refused(call)
            session.stages.failed(call)
        except HookFailed:
            session.stages.failed(call)
        else:
            tools += offered
    return tools


async def answer_tool(session: "Session", tool_call: ToolCall, timeout_s: float) -> str | None:
    """The first answer that is not None: of the ``tool_call`` hooks in chain order, then of the host. Raises
    ``HookFailed``."""
    for call in session.stages.calls("tool_call"):
        try:
            answer = await session.guard.call(call, session.view(call.stage), tool_call, limit_s=timeout_s)
        except Refused:
            raise session.guard.refused(call) from None
        if answer is None:
            continue
        if not isinstance(answer, str):
            raise session.guard.nonsense(call, answer)
        return answer
    if session.host_tools is not None:
        return await session.host_tools.answer_tool(session.id, session.principal.id, tool_call, timeout_s)
    return None
