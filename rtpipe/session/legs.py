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
        self.last: Connection | None = None
        """The one that serves it, or did last."""
        self._received = received
        self._attached = trio.Event()
        self._sending = 0
        self._sent = trio.lowlevel.ParkingLot()
        self.shown: Callable[[Sequence[bytes]], None] | None = None
        """Is shown what was taken, where somebody wants to know."""
        self.missed: Callable[[bytes], str] = lambda _: "lost"
        """Is given what was not; returns its fate."""
        self.listening = True
        """Whether anything more is taken from whatever serves this leg."""

    def attach(self, connection: Connection, start: Start) -> Connection | None:
        """Have *connection* serve this leg from now on. Returns the one it replaces, for the caller to
        close: only that ends its pump, so that the walk in hand is never cut short."""
        before = self.connection
        self.connection = self.last = connection
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
        return await self.send_many((payload,)) == 1

    async def send_many(self, payloads: Sequence[bytes]) -> int:
        """As `send`, several with one write. Returns how many of them were taken, from the first on."""
        connection = self.connection
        if connection is None:
            return 0
        self._sending += 1
        try:
            await connection.send_many(payloads)
            taken = len(payloads)
        except ConnectionLost as loss:
            taken = loss.taken
        finally:
            self._sending -= 1
            if self._sent:
                self._sent.unpark_all()
        if self.shown is not None and taken:
            self.shown(payloads[:taken])
        return taken

    @property
    def is_sending(self) -> bool:
        """Whether a send has not returned yet, to a connection that was perhaps taken off meanwhile."""
        return self._sending > 0

    async def sent(self) -> None:
        """Wait until every send has returned."""
        while self._sending:
            await self._sent.park()

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
