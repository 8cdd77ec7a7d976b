"""Everybody who is connected to the listeners of a process: counted, and bounded."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import trio

logger = logging.getLogger("rtpipe.transport")

_SILENCE_S: Final = 10.0
_LINGERING: Final = 64

Bound = Literal["connections", "connections_per_address"]


class Crowd:
    """Counts connections, in all and by address. `limit` and `limit_per_address` bound them; None: nothing
    does."""

    def __init__(self, limit: int | None = None, limit_per_address: int | None = None) -> None:
        self.limit = limit
        self.limit_per_address = limit_per_address
        self.connected = 0
        self.arriving = 0
        """Those whose request has not come yet."""
        self.turned_away: Counter[Bound] = Counter()
        """Connections that were one too many, by the bound they met."""
        self.accept_pauses = 0
        """How often accepting had to wait a moment: the process was out of file descriptors or memory."""
        self._by_address: Counter[str] = Counter()
        self._lingering = 0
        self._silent_until: dict[str, float] = {}
        self._arrived = trio.lowlevel.ParkingLot()

    def enter(self) -> "Guest":
        """Count in whoever was accepted just now."""
        return Guest(self)

    def bound_met(self, guest: "Guest") -> Bound | None:
        """Which bound this guest exceeds."""
        if self.limit is not None and self.connected > self.limit:
            return "connections"
        if self.limit_per_address is not None and self._by_address[guest.address] > self.limit_per_address:
            return "connections_per_address"
        return None

    def turn_away(self, bound: Bound, listener: str, address: str) -> None:
        """Count somebody who is one too many, and now and then say so: a flood of connections must not be one
        of lines."""
        self.turned_away[bound] += 1
        if self._worth_a_line(bound):
            what = "from one address" if bound == "connections_per_address" else "in all"
            logger.warning(
                "listener %s: %s is turned away: too many connections %s (%d so far)",
                listener,
                address,
                what,
                self.turned_away[bound],
            )

    def accept_paused(self, listener: str, error: OSError) -> None:
        """Nobody can be accepted for a moment. Likewise counted, and now and then told."""
        self.accept_pauses += 1
        if self._worth_a_line("accept"):
            logger.warning("listener %s: accept paused: %s", listener, error)

    def _worth_a_line(self, what: str) -> bool:
        now = trio.current_time()
        if now < self._silent_until.get(what, now):
            return False
        self._silent_until[what] = now + _SILENCE_S
        return True

    @property
    def may_linger(self) -> bool:
        """Whether one more of those who are turned away may be told why."""
        return self._lingering < _LINGERING

    @contextmanager
    def lingering(self) -> Iterator[None]:
        """Count somebody who is turned away and told why."""
        self._lingering += 1
        try:
            yield
        finally:
            self._lingering -= 1

    @contextmanager
    def arrival(self) -> Iterator[None]:
        """Count somebody whose request has yet to come."""
        self.arriving += 1
        try:
            yield
        finally:
            self.one_arrived()

    async def all_arrived(self) -> None:
        """Wait until everybody's request has come. Requests have a deadline, which bounds it."""
        while self.arriving:
            await self._arrived.park()

    def one_arrived(self) -> None:
        self.arriving -= 1
        self._arrived.unpark_all()

    def count_at(self, address: str, change: int) -> None:
        self._by_address[address] += change
        if not self._by_address[address]:
            del self._by_address[address]


class Guest:
    """One connection, from its accepting to its end."""

    __slots__ = ("_arriving", "_crowd", "address")

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.address = ""
        self._arriving = True
        crowd.arriving += 1
        crowd.connected += 1

    def arrived(self) -> None:
        """Its request has come, or never will."""
        if self._arriving:
            self._arriving = False
            self._crowd.one_arrived()

    def comes_from(self, address: str) -> None:
        """Where it comes from is known now, or known better."""
        if self.address:
            self._crowd.count_at(self.address, -1)
        self.address = address
        self._crowd.count_at(address, 1)

    def leave(self) -> None:
        self.arrived()
        self._crowd.connected -= 1
        if self.address:
            self._crowd.count_at(self.address, -1)
