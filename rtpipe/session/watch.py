"""Watchers: hooks that see events and facts off the path."""

from collections import deque
from typing import Any

import trio

from rtpipe.chain.guard import Guard, HookCall


class Watchers:
    """A bounded queue of what watchers have yet to see, and the task that shows it to them."""

    def __init__(self, guard: Guard, limit: int) -> None:
        self.missed = 0
        self._guard = guard
        self._limit = limit
        self._queue: deque[tuple[HookCall, tuple[Any, ...]]] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def show(self, call: HookCall, *args: Any) -> None:
        """Queue something for one watcher; past the limit it is missed and counted."""
        if len(self._queue) >= self._limit:
            self.missed += 1
            return
        self._queue.append((call, args))
        self._changed.unpark_all()

    async def run(self) -> None:
        """Show what is queued, one after the other, for as long as the session lives."""
        while True:
            while not self._queue:
                await self._changed.park()
            await self.flush()

    async def flush(self) -> None:
        """Show everything that is queued now."""
        while self._queue:
            call, args = self._queue.popleft()
            await self._guard.run(call, *args)
            await trio.lowlevel.checkpoint()
