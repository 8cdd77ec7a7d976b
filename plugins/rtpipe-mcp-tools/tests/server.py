"""A server for the tests: ``server.py stdio`` or ``server.py http PORT``, by the official SDK."""

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

server = MCPServer("test")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool(structured_output=False)
def say(text: str) -> list[str]:
    """Says it twice."""
    return [text, text]


@server.tool()
def fail() -> str:
    """Fails."""
    raise ToolError("SELECT * FROM secrets")


@server.tool()
def environment() -> dict[str, str]:
    """What it was given."""
    return {**os.environ, "directory": str(Path.cwd())}


def note(file: str, what: str) -> None:
    Path(file).write_text(what)


@server.tool()
async def wait(file: str) -> str:
    """Waits, and says in a file how that ended."""
    note(file, "waiting")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(file, "cancelled")
        raise
    return "done"


@server.tool()
def die() -> str:
    """Ends the process."""
    os._exit(1)


@server.tool()
def shout() -> str:
    """Writes on stderr."""
    sys.stderr.write("x" * 10_000 + "\nshouted\n")
    sys.stderr.flush()
    return "ok"


@server.tool()
async def grow(context: Context) -> str:
    """Offers one tool more."""
    server.add_tool(lambda: "new", name="grown", description="Grown.")
    await context.notify_tools_changed()
    return "grown"


@server.tool()
def long() -> str:
    """A long answer."""
    return "x" * 300_000


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
