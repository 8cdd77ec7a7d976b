"""What the parts of the daemon share: configuration, chain, guard, and the sessions in service."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from rtpipe.api.errors import Refused
from rtpipe.api.facts import Fact
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard
from rtpipe.daemon.config import Config, Listen, Upstream
from rtpipe.daemon.logs import log_fact
from rtpipe.daemon.taps import Tap
from rtpipe.session.closing import Ending
from rtpipe.session.limits import SessionLimits
from rtpipe.session.session import Session
from rtpipe.session.watch import Watchers


@dataclass(slots=True)
class Process:
    """One running daemon."""

    config: Config
    guard: Guard
    chain: Chain
    upstreams: Sequence[Upstream]
    watchers: Watchers
    sessions: dict[str, Session] = field(default_factory=dict)
    stopping: bool = False
    observer: Callable[[Fact], None] = log_fact
    """Is shown every fact, besides the stages and the taps."""
    taps: list[Tap] = field(default_factory=list)
    _admitted: int = 0
    _establishing: set[trio.CancelScope] = field(default_factory=set)
    _emptied: trio.Event = field(default_factory=trio.Event)

    @property
    def session_limits(self) -> SessionLimits:
        limits = self.config.limits
        return SessionLimits(
            hold_bytes=limits.hold_bytes,
            hold_age_s=limits.hold_age_s,
            inject_events=limits.inject_events,
            watch_events=limits.watch_events,
        )

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
    def registered(self, session: Session) -> Iterator[None]:
        """Count a session as in service."""
        self.sessions[session.id] = session
        try:
            yield
        finally:
            del self.sessions[session.id]

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

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Show *tap* what passes from now on."""
        self.taps.append(tap)
        try:
            yield
        finally:
            self.taps.remove(tap)

    def observe(self, fact: Fact) -> None:
        """A fact that its session has shown to the stages."""
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
