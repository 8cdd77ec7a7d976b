"""Tools of MCP servers."""

from rtpipe_mcp_tools.config import Config, Server
from rtpipe_mcp_tools.plugin import McpTools

__all__ = ["Config", "McpTools", "Server"]
