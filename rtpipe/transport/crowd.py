"""Everybody who is connected to the listeners of a process: counted, and bounded."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import trio

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
        """How often accepting had to wait: the process was out of file descriptors or memory."""
        self._by_address: Counter[str] = Counter()
        self._arrived = trio.lowlevel.ParkingLot()

    def enter(self) -> "Guest":
        """Count in whoever was accepted just now."""
        return Guest(self)

    def bound_met(self, address: str) -> Bound | None:
        """Which bound is exceeded, by those who are in. A guest counts at its address once that is known."""
        if self.limit is not None and self.connected > self.limit:
            return "connections"
        if self.limit_per_address is not None and self._by_address[address] > self.limit_per_address:
            return "connections_per_address"
        return None

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

    __slots__ = ("_address", "_arriving", "_crowd")

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._address: str | None = None
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
        if self._address is not None:
            self._crowd.count_at(self._address, -1)
        self._address = address
        self._crowd.count_at(address, 1)

    def leave(self) -> None:
        self.arrived()
        self._crowd.connected -= 1
        if self._address is not None:
            self._crowd.count_at(self._address, -1)
