"""A lane: one direction of one session. What walks in it, what waits in it, and in which order.

Walks in a lane never overlap. The pump that reads a leg brings events in with ``enter``; events and orders
of plugins and the host come through ``inject`` and ``do``, and are taken up after the walk in hand.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from rtpipe.api.errors import QueueFull
from rtpipe.api.event import Event
from rtpipe.api.facts import Fact, Waited
from rtpipe.api.verdicts import Drop, Hold, Verdict
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard, HookCall
from rtpipe.chain.walk import walk
from rtpipe.protocol.catalogue import Direction
from rtpipe.session.holds import Held, HoldQueue
from rtpipe.session.legs import Leg
from rtpipe.session.limits import SessionLimits

Job = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """Where events came from and what became of them. Every event that came has exactly one fate:
    ``came == went + waiting`` whenever the lane is idle."""

    entered: int = 0
    injected: int = 0
    expanded: int = 0
    fates: dict[str, int] = field(default_factory=dict)

    @property
    def came(self) -> int:
        return self.entered + self.injected + self.expanded

    @property
    def went(self) -> int:
        return sum(self.fates.values())

    def end(self, fate: str, count: int = 1) -> None:
        self.fates[fate] = self.fates.get(fate, 0) + count


class Port(Protocol):
    """What a lane needs of its session."""

    @property
    def absent(self) -> Container[str]: ...

    def view(self, stage: str) -> Any: ...

    def watched(self, call: HookCall, event: Event) -> None: ...

    async def deliver(self, direction: Direction, event: Event) -> str:
        """Hand an event to the far leg; returns its fate."""
        ...

    def decided(self, direction: Direction, event: Event, stage: str, verdict: Verdict) -> str:
        """Act on a verdict that ends an event's walk; returns its fate."""
        ...

    def overflowed(self, direction: Direction, event: Event, stage: str) -> str:
        """A hold queue is full; returns the event's fate."""
        ...

    def record(self, fact: Fact) -> None: ...

    @property
    def changed(self) -> Callable[[], None]:
        """Is called when something is held."""
        ...

    def kind(self, event: Event) -> str:
        """How the ordering table sorts an event."""
        ...


class Lane:
    """One direction of one session; the surroundings of its walks."""

    def __init__(
        self, direction: Direction, chain: Chain, guard: Guard, port: Port, limits: SessionLimits
    ) -> None:
        self.direction = direction
        self.tally = Tally()
        self._chain = chain
        self._guard = guard
        self._port = port
        self._limits = limits
        self._queues: dict[int, HoldQueue] = {}
        self._inbox: deque[Job] = deque()
        self._injected = 0
        self._busy = False
        self._free = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()

    # --- what comes in --------------------------------------------------------------------------------------

    async def enter(self, event: Event) -> None:
        """Walk an event that a leg has received; returns when it has its fate or waits in a queue."""
        while self._busy or self._inbox:
            await self._free.park()
        self.tally.entered += 1
        await self._take_turn(lambda: self._walk(event, 0))

    @property
    def is_free(self) -> bool:
        """Whether nothing walks, waits or is on its way: what no stage wants may pass without a walk."""
        return not (self._busy or self._inbox or self._queues)

    async def pass_on(self, run: list[bytes], leg: Leg) -> None:
        """Let a run of events that no stage wants pass to *leg* with one write; only while it is free."""
        self.tally.entered += len(run)
        self._busy = True
        try:
            taken = await leg.send_many(run)
            self.tally.end("delivered", taken)
            for payload in run[taken:]:
                self.tally.end(leg.missed(payload))
        finally:
            self._busy = False
            if self._inbox:
                self._work.unpark_all()
            elif self._free:
                self._free.unpark_all()

    def inject(self, event: Event, step: int) -> None:
        """Have an event walk from *step* on, after the walk in hand. Raises ``QueueFull``."""
        self.require_room()
        self._injected += 1
        self.tally.injected += 1

        async def walk_it() -> None:
            self._injected -= 1
            await self._walk(event, step)

        self.do(walk_it)

    def require_room(self) -> None:
        """Raises ``QueueFull`` when nothing more can be injected."""
        if self._injected >= self._limits.inject_events:
            raise QueueFull(f"{self._injected} events sent by plugins already wait to walk {self.direction}")

    def do(self, job: Job) -> None:
        """Have *job* run in this lane, between walks."""
        self._inbox.append(job)
        if not self._busy:
            self._work.unpark_all()

    async def run(self) -> None:
        """Take up what is injected while no pump is walking; runs as long as the session."""
        while True:
            while self._busy or not self._inbox:
                await self._work.park()
            await self._take_turn(self._inbox.popleft())

    async def settle(self) -> None:
        """Wait until nothing walks and nothing is on its way; what is held stays held."""
        while self._busy or self._inbox:
            await self._free.park()

    async def _take_turn(self, job: Job) -> None:
        self._busy = True
        try:
            await job()
            while self._inbox:
                # Stages that answer each other for ever must not keep the other sessions from running.
                await trio.lowlevel.checkpoint()
                await self._inbox.popleft()()
        finally:
            self._busy = False
            self._free.unpark_all()
            if self._inbox:
                # Only after a turn that was cut short: one that ends well has taken up everything.
                self._work.unpark_all()

    async def _walk(self, event: Event, start: int) -> None:
        await walk(self._chain, self._guard, self.direction, event, start, self)

    # --- what waits -----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Events in hold queues."""
        return sum(len(queue) for queue in self._queues.values())

    def held(self) -> Iterator[Event]:
        """What is in them, in the order in which it came."""
        for step in sorted(self._queues, reverse=True):  # who is further on came before
            yield from self._queues[step]

    def enter_again(self, event: Event) -> None:
        """Have an event walk that another process held, behind those that do so already."""
        self.tally.entered += 1
        self.do(partial(self._walk, event, 0))

    def release(self, key: str, step: int, event: Event | None) -> bool:
        """Let what a stage holds under *key* go on, or *event* in its place, as far as the ordering table
        allows.

        Returns whether anything was held.
        """
        queue = self._queues.get(step)
        if queue is None or not queue.release(key, event):
            return False
        self.do(lambda: self._drain(step))
        return True

    def holds(self, key: str, step: int) -> bool:
        """Whether a stage holds anything under *key*."""
        queue = self._queues.get(step)
        return queue is not None and queue.holds(key)

    def put_back(self, event: Event, key: str, step: int) -> bool:
        """Hold an event that has passed this step before, in front of everything else; False when the queue
        is full."""
        if not self._keep(event, step, key, put_back=True):
            return False
        self.tally.injected += 1
        return True

    def drop_held(self, key: str, step: int, stage: str, drop: Drop, outcome: str) -> None:
        """Drop what a stage holds under *key*; what waited behind it goes on."""
        queue = self._queues.get(step)
        if queue is not None and (entries := queue.drop(key)):
            self._abandon(entries, step, stage, drop, outcome)

    def expire(self, now_s: float) -> None:
        """Drop what has been held for too long."""
        for step, queue in list(self._queues.items()):
            stage = self._chain.walk_order(self.direction)[step].name
            if entries := queue.expire(now_s, self._limits.hold_age_s):
                reason = f"The event was held for {self._limits.hold_age_s:g} s by {stage} and was given up."
                self._abandon(entries, step, stage, Drop(reason), "expired")

    def close(self) -> None:
        """The session is over: what still waits is lost."""
        for queue in self._queues.values():
            for _ in queue.clear():
                self.tally.end("lost")
        self._queues.clear()

    async def _drain(self, step: int) -> None:
        """Walk on whatever may go now from the queue at *step*."""
        queue = self._queues.get(step)
        while queue is not None and (entry := queue.take()) is not None:
            if entry.key is not None:
                self._waited(entry, step, "released")
            await self._walk(entry.event, step + 1)
        if queue is not None and not queue:
            self._queues.pop(step, None)

    def _abandon(self, entries: list[Held], step: int, stage: str, drop: Drop, outcome: str) -> None:
        for entry in entries:
            self._waited(entry, step, outcome)
            self.tally.end(self._port.decided(self.direction, entry.event, stage, drop))
        self.do(lambda: self._drain(step))

    def _waited(self, entry: Held, step: int, outcome: str) -> None:
        stage = self._chain.walk_order(self.direction)[step].name
        seconds = trio.current_time() - entry.since_s
        self._port.record(Waited(stage=stage, type=entry.event.type, duration_s=seconds, outcome=outcome))

    def _queue(self, event: Event, step: int, key: str | None) -> None:
        if not self._keep(event, step, key):
            stage = self._chain.walk_order(self.direction)[step].name
            self.tally.end(self._port.overflowed(self.direction, event, stage))

    def _keep(self, event: Event, step: int, key: str | None, *, put_back: bool = False) -> bool:
        queue = self._queues.get(step)
        if queue is None:
            queue = self._queues[step] = HoldQueue(self.direction, self._limits.hold_bytes, self._limits.held)
        kind = self._port.kind(event)
        is_kept = queue.add(Held(event, kind, key, trio.current_time(), put_back=put_back))
        self._port.changed()
        return is_kept

    # --- the surroundings of a walk -------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        return bool(self._queues)

    @property
    def absent(self) -> Container[str]:
        return self._port.absent

    def view(self, stage: str) -> Any:
        return self._port.view(stage)

    def must_wait(self, event: Event, step: int) -> bool:
        queue = self._queues.get(step)
        if queue is None or not queue.blocks(self._port.kind(event)):
            return False
        self._queue(event, step, None)
        return True

    def watched(self, call: HookCall, event: Event) -> None:
        self._port.watched(call, event)

    async def arrived(self, event: Event) -> None:
        self.tally.end(await self._port.deliver(self.direction, event))

    def stopped(self, event: Event, step: int, stage: str, verdict: Verdict) -> None:
        if isinstance(verdict, Hold):
            self._queue(verdict.event or event, step, verdict.key)
        else:
            self.tally.end(self._port.decided(self.direction, event, stage, verdict))

    def expanded(self, count: int) -> None:
        self.tally.expanded += count - 1
