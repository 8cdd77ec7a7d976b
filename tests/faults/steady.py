"""Well-behaved sessions, and how long each delta takes through the gateway. One process is both the model and
the clients, so one clock says when it was sent and when it was there."""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from collections.abc import Callable

from benchmarks.link import Link
from benchmarks.load import BLOCK_FRAMES, Load, Target

RATE = 10.0
"""Deltas a second of each session, and audio appends."""


class Steady(Load):
    """Sessions that each hear a delta, and tell an append, every so often and out of step with each other."""

    def begin(self, target: Target, sessions: int) -> None:
        """Open them one by one, so that it is known which two connections are one session."""
        for number in range(1, sessions + 1):
            self._connect(target)
            while self._greeted() < number:
                self._turn(0.1)
                self._check_ends()
        pairs = zip(self._side(masks=False), self._side(masks=True), strict=True)
        self._lines = [_Line(*pair) for pair in pairs]

    def times(self, going: Callable[[], bool]) -> list[float]:
        """The seconds that each delta took, for as long as *going* says."""
        began, found = time.perf_counter(), list[float]()
        phases = random.Random(1)
        due = [(began + phases.uniform(0, 1 / RATE), number) for number in range(len(self._lines))]
        heapq.heapify(due)
        sent = 0
        while going() or any(line.waiting for line in self._lines):
            at, number = due[0]
            now = time.perf_counter()
            if now >= at and going():
                line = self._lines[number]
                line.waiting.append(now)
                taken = line.model.send_one(self._frames["down"][sent % BLOCK_FRAMES])
                assert taken, "a well-behaved session is backed up"
                assert line.client.send_one(self._frames["up"][sent % BLOCK_FRAMES])
                heapq.heapreplace(due, (at + 1 / RATE, number))
                sent += 1
            self._turn(min(max(at - now, 0), 0.05))
            self._check_ends()
            for line in self._lines:
                line.take(found)
        return found


class _Line:
    """The two ends of one session."""

    def __init__(self, model: Link, client: Link) -> None:
        self.model = model
        self.client = client
        self.waiting: deque[float] = deque()
        """When each delta was sent that has not come."""
        self._seen = client.counter.measured

    def take(self, found: list[float]) -> None:
        """Add the times of those that have come by now."""
        while self._seen < self.client.counter.measured:
            self._seen += 1
            found.append(time.perf_counter() - self.waiting.popleft())
