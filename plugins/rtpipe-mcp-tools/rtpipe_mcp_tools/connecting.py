"""One connection with a server, by the official SDK. Importing this loads it."""

import logging
import os
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

import httpx2
import mcp_types
import msgspec
import trio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from rtpipe import Tool, tool_error
from rtpipe_mcp_tools.keeping import Unavailable

if TYPE_CHECKING:
    from rtpipe_mcp_tools.keeping import Kept

log = logging.getLogger("rtpipe_mcp_tools")
# What they say comes to us as well; their lines have arguments, headers and whole answers in them.
for _name in ("mcp", "client", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

MAX_TOOLS = 256
MAX_PAGES = 32
MAX_RESULT_BYTES = 256 * 1024
MAX_LINE_CHARS = 500
"""Of what a program writes on stderr, in one line of the log."""
_READ_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONNECT_S, _SILENCE_S = 10.0, 300.0


class Connection:
    """A client of one server. Raises ``Unavailable`` and what the SDK raises when it is lost."""

    def __init__(self, kept: "Kept") -> None:
        self._kept = kept
        self._server = kept.server
        self._client: Client | None = None
        self._errors: TextIO | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be connected."""
        reach = self._program if self._server.command else self._url
        async with reach() as transport:
            client = Client(
                transport,
                client_info=mcp_types.Implementation(name="rtpipe", version=version("rtpipe-gateway")),
                message_handler=self._hear,
                cache=None,
            )
            async with client, trio.open_nursery() as nursery:
                if self._errors is not None:
                    self._errors.close()  # now the program has it, and its end is seen
                self._client = client
                nursery.start_soon(self._listen, client)
                yield
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _url(self) -> AsyncIterator[AbstractAsyncContextManager[Any]]:
        limits = httpx2.Timeout(_CONNECT_S, read=_SILENCE_S)
        headers = self._kept.headers
        async with httpx2.AsyncClient(headers=headers, timeout=limits, trust_env=False) as http:
            yield streamable_http_client(self._server.url, http_client=http)

    @asynccontextmanager
    async def _program(self) -> AsyncIterator[AbstractAsyncContextManager[Any]]:
        program, *arguments = self._server.command
        parameters = StdioServerParameters(
            command=program, args=arguments, env=self._kept.env, cwd=self._server.directory
        )
        read, write = os.pipe()
        async with trio.lowlevel.FdStream(read) as stderr, trio.open_nursery() as nursery:
            with os.fdopen(write, "w") as self._errors:
                nursery.start_soon(self._log, stderr)
                yield stdio_client(parameters, errlog=self._errors)
            nursery.cancel_scope.cancel()

    # --- what it offers -------------------------------------------------------------------------------------

    async def list_tools(self) -> dict[str, Tool]:
        """The tools to offer, by the names they are offered under."""
        assert self._client is not None
        tools: dict[str, Tool] = {}
        cursor = None
        for _ in range(MAX_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            for each in page.tools:
                if (tool := self._tool(each)) is not None:
                    tools.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if not cursor or len(tools) >= MAX_TOOLS:
                break
        return dict(list(tools.items())[:MAX_TOOLS])

    def _tool(self, theirs: mcp_types.Tool) -> Tool | None:
        allow = self._server.allow
        if allow is not None and not any(fnmatchcase(theirs.name, pattern) for pattern in allow):
            return None
        name = self._server.prefix + theirs.name
        if not _NAME.fullmatch(name):
            log.warning("server %s: no function can be called %s", self._kept.name, ascii(name[:80]))
            return None
        hints = theirs.annotations
        return Tool(
            name=name,
            description=theirs.description or "",
            parameters=theirs.input_schema,
            timeout_s=self._server.timeout_ms / 1000,
            cancellable=hints is not None and hints.read_only_hint is True,
        )

    async def _hear(self, message: object) -> None:
        """The server speaks unasked: up to protocol 2025-11-25 this is how it says that its tools changed."""
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._kept.look()
        elif isinstance(message, Exception):
            log.debug(
                "server %s: a message of its cannot be read: %s", self._kept.name, type(message).__name__
            )

    async def _listen(self, client: Client) -> None:
        """From 2026-07-28 on we hear of changes by asking for them."""
        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._kept.look()
        except (MCPError, RuntimeError, TimeoutError) as exc:
            # An older protocol, or the stream was lost: what it offers is looked at now and then anyway.
            log.debug("server %s: changes are not heard of: %s", self._kept.name, describe(exc))

    # --- calls ----------------------------------------------------------------------------------------------

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool by the server's name for it. Raises ``Unavailable``."""
        assert self._client is not None
        try:
            result = await self._client.call_tool(name, arguments)
        except Exception as exc:  # noqa: BLE001 - the SDK raises what its libraries raise
            self._kept.look()
            raise Unavailable(f"server {self._kept.name}: {describe(exc)}") from None
        text = _text(result)
        if len(text.encode()) > MAX_RESULT_BYTES:
            raise Unavailable(f"server {self._kept.name}: a result has more than {MAX_RESULT_BYTES} bytes")
        if not result.is_error:
            return text
        if self._server.show_errors:
            return tool_error(text or "That did not work.")
        raise Unavailable(f"server {self._kept.name}: the tool says: {text}")

    async def _log(self, stderr: trio.lowlevel.FdStream) -> None:
        """What the program writes for people, at the level debug."""
        rest = b""
        async for data in stderr:
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _READ_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                log.debug(
                    "server %s: stderr: %s", self._kept.name, line.decode(errors="replace")[:MAX_LINE_CHARS]
                )
        # All that had it open have ended.
        self._kept.look()


def _text(result: mcp_types.CallToolResult) -> str:
    """What of a result is for the model: what is structured, else its text, and what had to be left out."""
    if result.structured_content is not None and not result.is_error:
        return msgspec.json.encode(result.structured_content).decode()
    parts = []
    for block in result.content:
        if isinstance(block, mcp_types.TextContent):
            parts.append(block.text)
        else:
            parts.append(f"({block.type}, which cannot be shown)")
    return "\n".join(parts)


def describe(exc: BaseException) -> str:
    """An error in one line: of a group the first."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, OSError | Unavailable | MCPError):
        return str(exc)[:MAX_LINE_CHARS] or type(exc).__name__
    return f"{type(exc).__name__}: {str(exc)[:MAX_LINE_CHARS]}".rstrip(": ")
