"""What stages have to say about a chain before it serves anybody."""

import inspect

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.tools import Tool
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard


async def warnings_of(chain: Chain, guard: Guard) -> list[str]:
    """What the ``warnings`` hooks say, in chain order, each line with its stage; failures are logged."""
    tools = await _offered_to_all(chain, guard)
    found = []
    for call in chain.calls("warnings"):
        try:
            said = await guard.call(call, tools)
            if not isinstance(said, list):
                raise guard.nonsense(call, said)
        except (HookFailed, Refused):
            continue
        found += [f"plugin {call.stage}: {each}" for each in said]
    return found


async def _offered_to_all(chain: Chain, guard: Guard) -> list[Tool]:
    """The tools of the stages whose ``tools`` does not ask for the session: all sessions get the same."""
    plugins = {stage.name: stage.plugin for stage in chain.stages}
    tools: list[Tool] = []
    for call in chain.calls("tools"):
        hook = getattr(type(plugins[call.stage]), call.hook)
        if "session" in inspect.signature(hook).parameters:
            continue
        try:
            tools += await guard.call(call, None)
        except (HookFailed, Refused):
            continue
    return tools
