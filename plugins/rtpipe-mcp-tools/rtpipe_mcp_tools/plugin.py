"""The plugin: keeps its servers connected, offers their tools, hands them calls."""

from typing import ClassVar

import trio

from rtpipe import ConfigError, Health, Host, OnError, Plugin, Session, Tool, ToolCall
from rtpipe_mcp_tools.config import Config
from rtpipe_mcp_tools.keeping import Kept

_SHUTDOWN_S = 4.5


class McpTools(Plugin[Config, None]):
    """Offers the tools of MCP servers."""

    on_error: ClassVar[OnError] = "pass"  # without it tools are missing

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self.servers = [Kept(name, server, host.tools_changed) for name, server in config.servers.items()]

    def startup(self) -> None:
        """Read the secrets and begin to connect. Sessions get the tools as soon as they are known."""
        for server in self.servers:
            try:
                server.prepare()
            except ConfigError as exc:
                raise ConfigError(f"servers.{server.name}: {exc}") from None
            self.start_soon(server.keep)

    async def shutdown(self) -> None:
        """Say goodbye to the servers, and see programs end."""
        with trio.move_on_after(_SHUTDOWN_S):
            async with trio.open_nursery() as nursery:
                for server in self.servers:
                    nursery.start_soon(server.stop)

    def tools(self) -> list[Tool]:
        """The tools of the servers that are connected; of two with one name the first."""
        tools: dict[str, Tool] = {}
        for server in self.servers:
            tools = server.tools | tools
        return list(tools.values())

    async def tool_call(self, session: Session[None], call: ToolCall) -> str | None:  # noqa: ARG002
        """Ask the first server that has this tool."""
        for server in self.servers:
            if call.name in server.tools:
                return await server.call(call)
        return None

    def health(self) -> Health:
        """Which servers are there."""
        gone = [server.name for server in self.servers if not server.is_connected]
        if gone:
            return Health(ok=False, sentence=f"not connected: {', '.join(gone)}")
        count = len(self.tools())
        return Health(ok=True, sentence=f"offers {count} {'tool' if count == 1 else 'tools'}")
