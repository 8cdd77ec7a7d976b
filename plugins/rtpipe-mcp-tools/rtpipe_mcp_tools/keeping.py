"""One server kept warm: connected, asked what it offers, connected again when it is lost.

The SDK is loaded when the first server is connected to, in a thread: it is large.
"""

import importlib
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from rtpipe import Tool, ToolCall
from rtpipe_mcp_tools.config import Server

if TYPE_CHECKING:
    from rtpipe_mcp_tools.connecting import Connection

log = logging.getLogger("rtpipe_mcp_tools")

CONNECT_LIMIT_S = 20.0
"""What starting a program, or reaching a URL, and the first list of tools may take together."""
LIST_LIMIT_S = 10.0
CHECK_S = 60.0
"""How often a server that says nothing is asked what it offers, which shows that it is there."""
FIRST_DELAY_S = 0.5
LAST_DELAY_S = 60.0


class Unavailable(Exception):
    """The server is not there, or has failed; the text is for the log."""


class Kept:
    """A server, whatever becomes of the connection with it."""

    def __init__(self, name: str, server: Server, changed: Callable[[], None]) -> None:
        self.name = name
        self.server = server
        self.tools: dict[str, Tool] = {}
        """By the names they are offered under."""
        self._changed = changed
        self._connection: Connection | None = None
        self._scope = trio.CancelScope()
        self._wake = trio.Event()
        self._is_kept = False
        self._gone = trio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether calls can be made."""
        return self._connection is not None

    def prepare(self) -> None:
        """Read the secrets. Raises ``ConfigError``."""
        self.env = self.server.revealed_env()
        self.headers = self.server.revealed_headers()

    async def keep(self) -> None:
        """Be connected until ``stop``."""
        self._is_kept = True
        try:
            with self._scope:
                await self._keep()
        finally:
            self._gone.set()

    async def stop(self) -> None:
        """Disconnect, and wait until a program has ended."""
        self._scope.cancel()
        if self._is_kept:
            await self._gone.wait()

    def look(self) -> None:
        """Something has happened: see whether the server is there, and what it offers."""
        self._wake.set()

    async def call(self, call: ToolCall) -> str:
        """The answer. Raises ``Unavailable``; cancelling it tells the server."""
        if self._connection is None:
            raise Unavailable(f"the server {self.name} is not connected")
        arguments = msgspec.json.decode(call.arguments, type=dict[str, Any])
        return await self._connection.call(call.name.removeprefix(self.server.prefix), arguments)

    async def _keep(self) -> None:
        connecting = await trio.to_thread.run_sync(importlib.import_module, "rtpipe_mcp_tools.connecting")
        delay_s = FIRST_DELAY_S
        while True:
            began_s = trio.current_time()
            try:
                await self._once(connecting.Connection(self))
            except Exception as exc:  # noqa: BLE001 - whatever it is, another connection may do better
                log.warning("server %s: %s", self.name, connecting.describe(exc))
            finally:
                self._connection = None
                self._offer({})
            if trio.current_time() - began_s > LAST_DELAY_S:
                delay_s = FIRST_DELAY_S
            # Not all gateways at once.
            await trio.sleep(delay_s * random.uniform(0.8, 1.2))  # noqa: S311
            delay_s = min(2 * delay_s, LAST_DELAY_S)

    async def _once(self, connection: "Connection") -> None:
        """One connection until it is lost, which an exception says."""
        with trio.CancelScope(deadline=trio.current_time() + CONNECT_LIMIT_S) as scope:
            async with connection.open():
                tools = await connection.list_tools()
                scope.deadline = float("inf")
                self._connection = connection
                log.info("server %s: connected, %d tools", self.name, len(tools))
                self._offer(tools)
                while True:
                    with trio.move_on_after(CHECK_S):
                        await self._wake.wait()
                    self._wake = trio.Event()
                    with trio.fail_after(LIST_LIMIT_S):
                        tools = await connection.list_tools()
                    self._offer(tools)
        if scope.cancelled_caught:
            raise Unavailable(f"it cannot be connected to within {CONNECT_LIMIT_S:g} s")

    def _offer(self, tools: dict[str, Tool]) -> None:
        if tools != self.tools:
            self.tools = tools
            self._changed()
