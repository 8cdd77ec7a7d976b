"""A leg: the place in a session where a connection is attached, served, lost and replaced."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from rtpipe.transport.connection import Closing, Connection, ConnectionLost

Start = Callable[..., None]
"""Starts a task: the session's way, which contains what comes out of it."""


class Leg:
    """One side of a session. At most one connection serves it at a time."""

    def __init__(
        self, received: Callable[[list[bytes]], Awaitable[None]], lost: Callable[[Closing], None]
    ) -> None:
        """*received* gets the payloads, all that came with one read at a time; *lost* is told when the
        connection is gone of itself."""
        self.connection: Connection | None = None
        self.lost = lost
        self.was_attached = False
        """Whether any connection has served this leg so far."""
        self._received = received
        self._attached = trio.Event()
        self.shown: Callable[[Sequence[bytes]], None] | None = None
        """Is shown what goes out, where somebody wants to know."""
        self.listening = True
        """Whether anything more is taken from whatever serves this leg."""

    def attach(self, connection: Connection, start: Start) -> Connection | None:
        """Have *connection* serve this leg from now on. Returns the one it replaces, for the caller to
        close: only that ends its pump, so that the walk in hand is never cut short."""
        before = self.connection
        self.connection = connection
        self.was_attached = True
        self._attached.set()
        start(self._pump, connection)
        return before

    def detach(self) -> Connection | None:
        """Take the connection off the leg. Returns it, for the caller to close."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._attached = trio.Event()
        return connection

    def stop_listening(self) -> None:
        """Take no more from whatever serves this leg, which still can be sent to."""
        self.listening = False

    async def attached(self) -> None:
        """Wait for a connection to serve this leg."""
        while self.connection is None:
            await self._attached.wait()

    async def send(self, payload: bytes) -> bool:
        """Send to whatever serves this leg. Returns whether it was taken; the pump notices a loss."""
        return await self.send_many((payload,))

    async def send_many(self, payloads: Sequence[bytes]) -> bool:
        """As `send`, several with one write."""
        if self.connection is None:
            return False
        if self.shown is not None:
            self.shown(payloads)
        try:
            await self.connection.send_many(payloads)
        except ConnectionLost:
            return False
        return True

    async def _pump(self, connection: Connection) -> None:
        try:
            while True:
                payloads = await connection.receive_many()
                if self.connection is not connection or not self.listening:
                    return
                await self._received(payloads)
        except ConnectionLost as loss:
            closing = loss.closing
        if self.connection is connection:
            self.connection = None
            self._attached = trio.Event()
            self.lost(closing)
