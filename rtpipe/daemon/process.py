"""What the parts of the daemon share: the generation in force, the guard, and the sessions in service."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from rtpipe.api.errors import Refused
from rtpipe.api.facts import Fact
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard
from rtpipe.daemon.config import Config, Listen
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.logs import log_fact
from rtpipe.daemon.taps import Tap
from rtpipe.daemon.tool_services import ToolServices
from rtpipe.daemon.totals import Totals
from rtpipe.session.closing import Ending
from rtpipe.session.session import Session
from rtpipe.session.watch import Watchers
from rtpipe.transport.frames import Reassembly


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A session, and what it does not know of itself: names of the configuration, and since when it is."""

    session: Session
    generation: Generation
    listener: str
    upstream: str
    since_s: float


@dataclass(slots=True)
class Process:
    """One running daemon."""

    generation: Generation
    guard: Guard
    watchers: Watchers
    reassembly: Reassembly
    served: dict[str, Served] = field(default_factory=dict)
    stopping: bool = False
    observer: Callable[[Fact], None] = log_fact
    """Is shown every fact, besides the stages and the taps."""
    taps: list[Tap] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    tools: ToolServices = field(init=False)
    _admitted: int = 0
    _establishing: set[trio.CancelScope] = field(default_factory=set)
    _emptied: trio.Event = field(default_factory=trio.Event)
    _untapped: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def __post_init__(self) -> None:
        self.tools = ToolServices(self.reconfigure)

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

    @contextmanager
    def room(self) -> Iterator[None]:
        """Count somebody in, from the handshake on. Raises ``Refused`` when no more are taken."""
        if self.stopping:
            raise _shutting_down()
        if self._admitted >= self.config.limits.max_sessions:
            raise Refused(
                503, "too_many_sessions", "The gateway is full; try again later.", {"Retry-After": "5"}
            )
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

    @contextmanager
    def registered(self, served: Served) -> Iterator[None]:
        """Count a session as in service."""
        self.served[served.session.id] = served
        try:
            yield
        finally:
            del self.served[served.session.id]

    async def empty(self) -> None:
        """Wait until everybody who was let in is gone."""
        while self._admitted:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def end_sessions(self, ending: Ending) -> None:
        """Tell every session to end, and refuse those that are not in service yet."""
        for scope in self._establishing:
            scope.cancel()
        for session in self.sessions.values():
            session.end(ending)

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

    def observe(self, fact: Fact) -> None:
        """A fact that its session has shown to the stages."""
        self.totals.fact(fact)
        self.observer(fact)
        for tap in self.taps:
            tap.fact(fact)

    def record(self, fact: Fact) -> None:
        """A fact that belongs to no session."""
        self.observe(fact)
        for call in self.chain.calls("fact"):
            self.watchers.show(call, None, fact)


def _shutting_down() -> Refused:
    return Refused(503, "shutting_down", "The gateway is shutting down; try again in a moment.")
