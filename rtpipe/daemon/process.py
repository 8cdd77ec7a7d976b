"""What the parts of the daemon share: the generation in force, the guard, and the sessions in service."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import trio

from rtpipe.api.errors import Refused
from rtpipe.api.facts import Fact
from rtpipe.api.principal import Principal
from rtpipe.api.store import StoreError
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard
from rtpipe.daemon import service
from rtpipe.daemon.alerts import Alerts
from rtpipe.daemon.audit import Audit
from rtpipe.daemon.config import Config, Listen
from rtpipe.daemon.failover import Rests
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.logs import log_fact
from rtpipe.daemon.persistence import Persistence
from rtpipe.daemon.pressure import Pressure
from rtpipe.daemon.resume import Places
from rtpipe.daemon.signs import Signs
from rtpipe.daemon.taps import Tap
from rtpipe.daemon.tool_services import ToolServices
from rtpipe.daemon.totals import Totals
from rtpipe.daemon.watchdog import Watchdog
from rtpipe.session.closing import Ending
from rtpipe.session.limits import Budget
from rtpipe.session.session import Session
from rtpipe.session.watch import Watchers
from rtpipe.transport.connection import Connection
from rtpipe.transport.crowd import Crowd
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.listening import Listener

log = logging.getLogger("rtpipe.daemon")

_TURN_S = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A session, and what it does not know of itself: names of the configuration, and since when it is."""

    session: Session
    generation: Generation
    listener: str
    first: str
    since_s: float
    dialled: WeakKeyDictionary[Connection, str] = field(default_factory=WeakKeyDictionary)
    """Which upstream each of its connections goes to."""

    @property
    def upstream(self) -> str:
        """The upstream that serves it, or did last; the one to be dialled first as long as none has."""
        last = self.session.upstream.last
        return self.first if last is None else self.dialled.get(last, self.first)


@dataclass(slots=True)
class Process:
    """One running daemon."""

    generation: Generation
    guard: Guard
    watchers: Watchers
    reassembly: Reassembly
    served: dict[str, Served] = field(default_factory=dict)
    guests: dict[trio.CancelScope, Principal] = field(default_factory=dict)
    stopping: bool = False
    """No session begins any more, and the daemon says that it is not ready."""
    doors: Sequence[Listener] = ()
    """The listeners as they were opened."""
    has_successor: bool = False
    """Somebody else will serve the same sockets. Then nobody comes once we stop but who was accepted before,
    and is let in: a refusal would be all that the caller sees of an upgrade."""
    observer: Callable[[Fact], None] = log_fact
    """Is shown every fact, besides the stages and the taps."""
    taps: list[Tap] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    watchdog: Watchdog = field(default_factory=Watchdog)
    crowd: Crowd = field(default_factory=Crowd)
    held: Budget = field(default_factory=Budget)
    """What all stages together hold back."""
    pressure: Pressure = field(init=False)
    audit: Audit = field(default_factory=Audit)
    tools: ToolServices = field(init=False)
    signs: Signs = field(init=False)
    alerts: Alerts = field(init=False)
    persistence: Persistence = field(init=False)
    places: Places = field(default_factory=Places)
    """The sessions that their clients can find again."""
    rests: Rests = field(default_factory=Rests)
    """Which upstreams could not be had of late."""
    _admitted: int = 0
    _establishing: set[trio.CancelScope] = field(default_factory=set)
    _emptied: trio.Event = field(default_factory=trio.Event)
    _stop_asked: trio.Event = field(default_factory=trio.Event)
    _ender: Callable[[Session], None] | None = None
    _turns: trio.Lock = field(default_factory=trio.Lock)
    _untapped: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def __post_init__(self) -> None:
        self.tools = ToolServices(self.reconfigure)
        self.pressure = Pressure(lambda: self.config.limits.max_memory_bytes, self.held)
        self.alerts = Alerts(lambda: self.config.alerts, trio.current_time)
        self.signs = Signs(lambda: self.config.signs, trio.current_time, self.record)

    @property
    def config(self) -> Config:
        return self.generation.config

    @property
    def chain(self) -> Chain:
        return self.generation.chain

    @property
    def sessions(self) -> dict[str, Session]:
        """The sessions in service, by their ids."""
        return {name: served.session for name, served in self.served.items()}

    def listener(self, name: str) -> Listen:
        """The configuration of the door of that name."""
        return next(listener for listener in self.config.listen if listener.name == name)

    def put_in_service(self, generation: Generation) -> None:
        """Have *generation* serve who comes from now on."""
        self.generation = generation
        limits = generation.config.limits
        self.crowd.limit = limits.max_connections
        self.crowd.limit_per_address = limits.max_connections_per_address
        self.held.limit = limits.max_held_bytes

    def stop(self, why: str) -> None:
        """Have the daemon drain and end; returns at once."""
        what = f"stopping, {len(self.served)} sessions end once they are idle"
        log.info("%s: %s", why, what)
        service.tell(STOPPING=1, STATUS=what)
        self.stopping = True
        self._stop_asked.set()

    async def stop_asked(self) -> None:
        """Wait until somebody wants the daemon to end."""
        await self._stop_asked.wait()

    def drain(self, ender: Callable[[Session], None]) -> None:
        """Give every session to *ender*, those that come into service yet included; refuse who is not in."""
        self._ender = ender
        if not self.has_successor:
            self._refuse_who_is_not_in_yet()
        for session in self.sessions.values():
            ender(session)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Count somebody in, from the handshake on. Raises ``Refused`` when no more are taken."""
        if self.stopping and not self.has_successor:
            raise _shutting_down()
        if self._admitted >= self.config.limits.max_sessions:
            raise Refused(
                503, "too_many_sessions", "The gateway is full; try again later.", {"Retry-After": "5"}
            )
        if self.pressure.refuses:
            self.pressure.refused[self.pressure.refuses] += 1
            message = f"The gateway is short of {self.pressure.refuses}; try again later."
            raise Refused(503, "overloaded", message, {"Retry-After": "5"})
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1
            if not self._admitted:
                self._emptied.set()

    @contextmanager
    def establishing(self) -> Iterator[None]:
        """The time until a session is in service. Raises ``Refused`` when the daemon stops meanwhile."""
        with trio.CancelScope() as scope:
            self._establishing.add(scope)
            try:
                yield
            finally:
                self._establishing.remove(scope)
        if scope.cancelled_caught:
            raise _shutting_down()

    async def turn(self) -> None:
        """Wait before a few milliseconds of work: for somebody who comes, or on a large event. Of a crowd one
        goes on at a time, and then the other sessions have as long."""
        async with self._turns:
            await trio.sleep(_TURN_S if self._turns.statistics().tasks_waiting else 0)

    @contextmanager
    def registered(self, served: Served) -> Iterator[None]:
        """Count a session as in service."""
        self.served[served.session.id] = served
        if self._ender is not None:
            self._ender(served.session)
        try:
            yield
        finally:
            del self.served[served.session.id]

    async def empty(self) -> None:
        """Wait until everybody who was let in is gone, and, where there is a successor, who is on the way."""
        while self._admitted or (self.has_successor and self.crowd.arriving):
            if self.has_successor:
                await self.crowd.all_arrived()
            if self._admitted:
                self._emptied = trio.Event()
                await self._emptied.wait()

    def end_sessions(self, ending: Ending) -> None:
        """Tell every session to end, and refuse those that are not in service yet."""
        self.has_successor = False
        self._refuse_who_is_not_in_yet()
        self._ender = partial(Session.end, ending=ending)
        for session in self.sessions.values():
            session.end(ending)

    def _refuse_who_is_not_in_yet(self) -> None:
        for scope in self._establishing:
            scope.cancel()

    @contextmanager
    def guest(self, principal: Principal) -> Iterator[trio.CancelScope]:
        """Count in somebody who has no session: a tap or a tool service. Cancelling the scope ends that."""
        with trio.CancelScope() as scope:
            self.guests[scope] = principal
            try:
                yield scope
            finally:
                del self.guests[scope]

    def reconfigure(self) -> None:
        """Compose every session anew: there are other tools than before."""
        for session in self.totals.live:
            session.reconfigure()

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Show *tap* what passes from now on."""
        self.taps.append(tap)
        try:
            yield
        finally:
            self.taps.remove(tap)
            self._untapped.unpark_all()

    async def end_taps(self) -> None:
        """Let all taps see what they have yet to see, and wait until they are gone."""
        for tap in self.taps:
            tap.end()
        while self.taps:
            await self._untapped.park()

    def redact(self, fact: Fact) -> Fact:
        """*fact* without what the rules in force take out of free text and arguments."""
        return self.generation.redactor.fact(fact)

    def redact_text(self, text: str, tool: str) -> str:
        """*text* likewise; the arguments of a call of *tool*, where that is not empty."""
        redactor = self.generation.redactor
        return redactor.arguments(tool, text) if tool else redactor.text(text)

    def redact_event(self, kind: str, payload: bytes) -> bytes:
        """An event of type *kind* as somebody may be shown it."""
        return self.generation.redactor.event(kind, payload)

    def observe(self, fact: Fact) -> None:
        """A fact that its session has shown to the stages."""
        self.totals.fact(fact)
        self.observer(fact)
        self.audit.fact(fact)
        self.signs.fact(fact)
        self.alerts.fact(fact)
        for tap in self.taps:
            tap.fact(fact)

    def store_failed(self, error: StoreError) -> None:
        """The disk failed a call of the store: counted each time, alerted once in a while."""
        self.totals.store_failures += 1
        self.signs.store_failed(error)

    def record(self, fact: Fact) -> None:
        """A fact that belongs to no session."""
        fact = self.redact(fact)
        self.observe(fact)
        for call in self.chain.calls("fact"):
            self.watchers.show(call, None, fact)


def _shutting_down() -> Refused:
    return Refused(503, "shutting_down", "The gateway is shutting down; try again in a moment.")
