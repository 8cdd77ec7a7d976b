"""A leg: the place in a session where a connection is attached, served, lost and replaced."""

from collections.abc import Awaitable, Callable

import trio

from rtpipe.transport.connection import Closing, Connection, ConnectionLost


class Leg:
    """One side of a session. At most one connection serves it at a time."""

    def __init__(self, received: Callable[[bytes], Awaitable[None]], lost: Callable[[Closing], None]) -> None:
        """*received* gets each payload; *lost* is told when the connection is gone of itself."""
        self.connection: Connection | None = None
        self.lost = lost
        self._received = received
        self._attached = trio.Event()
        self._pumping = trio.CancelScope()

    def attach(self, connection: Connection, nursery: trio.Nursery) -> Connection | None:
        """Have *connection* serve this leg from now on. Returns the one it replaces, for the caller to
        close."""
        before = self.connection
        self._pumping.cancel()
        self._pumping = trio.CancelScope()
        self.connection = connection
        self._attached.set()
        nursery.start_soon(self._pump, connection, self._pumping)
        return before

    def detach(self) -> Connection | None:
        """Take the connection off the leg. Returns it, for the caller to close."""
        connection, self.connection = self.connection, None
        self._pumping.cancel()
        self._attached = trio.Event()
        return connection

    async def attached(self) -> None:
        """Wait for a connection to serve this leg."""
        await self._attached.wait()

    async def send(self, payload: bytes) -> bool:
        """Send to whatever serves this leg. Returns whether it was taken; the pump notices a loss."""
        if self.connection is None:
            return False
        try:
            await self.connection.send(payload)
        except ConnectionLost:
            return False
        return True

    async def _pump(self, connection: Connection, scope: trio.CancelScope) -> None:
        with scope:
            try:
                while True:
                    await self._received(await connection.receive())
            except ConnectionLost as loss:
                closing = loss.closing
            if self.connection is connection:
                self.connection = None
                self._attached = trio.Event()
                self.lost(closing)
