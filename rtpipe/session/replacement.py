"""Another upstream in place of the one that serves: because it was lost, or because its time is nearly up."""

import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from rtpipe.api.errors import Refused
from rtpipe.api.facts import LegChanged
from rtpipe.session.closing import GOING_AWAY, may_be_replaced, upstream_ended
from rtpipe.transport.connection import Closing, Connection, ConnectionLost
from rtpipe.transport.dialer import DialFailed, DialRefused, DialTimeout

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")

Redial = Callable[[], Awaitable[Connection]]
"""Dials an upstream for the session as it is now. Raises what `Session.connect` raises."""

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 8.0
_FORCED_S = 5.0
"""How long before the end of its time an upstream is replaced even if somebody speaks."""
_LEAST_S = 30.0
"""An upstream has more time than this. Where it seems to have less, our clock is wrong, and those that
replaced it would be replaced in turn, without end."""
FAILURES = (DialRefused, DialFailed, DialTimeout, ConnectionLost, trio.TooSlowError)


class Replacement:
    """Looks for another upstream. Does nothing in a session that was not told how to dial."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.redial: Redial | None = None
        self._tries = 0
        self._since_s = 0.0
        self._served_since_s = 0.0
        self._clock: trio.CancelScope | None = None

    @property
    def is_possible(self) -> bool:
        return self.redial is not None

    def lost(self, closing: Closing) -> None:
        """The upstream's connection has ended of itself: the session ends too, or another is looked for."""
        session, now = self._session, trio.current_time()
        if self.redial is None or session.ending is not None or not may_be_replaced(closing):
            session.end(upstream_ended(closing))
            return
        if not self._tries or now - self._served_since_s > MAX_DELAY_S:  # the last one served for a while
            self._tries, self._since_s = 0, now
        cause = f"{closing.code} {closing.reason}".rstrip()
        session.record(LegChanged(leg="upstream", change="lost", cause=cause))
        session.upstream_edge.cut()
        session.start(self._replace, closing)

    async def _replace(self, closing: Closing) -> None:
        assert self.redial is not None
        session = self._session
        deadline_s = self._since_s + session.limits.outage_s
        wait_s = 0.0
        while (now := trio.current_time()) < deadline_s:
            await trio.sleep(min(max(wait_s, self._delay_s()), deadline_s - now))
            self._tries += 1
            try:
                with trio.fail_at(deadline_s):
                    connection = await self.redial()
                self._served_since_s = trio.current_time()
                await session.attach_upstream(connection)
            except Refused as exc:
                log.warning("session %s: no other upstream: %s", session.id, exc.message)
                break
            except FAILURES as exc:
                log.warning("session %s: no other upstream yet: %s", session.id, _why(exc))
                wait_s = retry_after_s(exc)
            else:
                return
        session.end(upstream_ended(closing))

    def _delay_s(self) -> float:
        """Spread, so that sessions that were lost together do not come back together."""
        return _spread(0, min(FIRST_DELAY_S * 2**self._tries, MAX_DELAY_S))

    # --- before its time is up ------------------------------------------------------------------------------

    def expires(self, moment_s: float | None) -> None:
        """The upstream that serves now ends the session at *moment_s*, seconds since 1970."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        remaining_s = (moment_s or 0) - time.time()
        if remaining_s > _LEAST_S and self.redial is not None:
            self._session.start(self._roll_over, remaining_s)

    async def _roll_over(self, remaining_s: float) -> None:
        assert self.redial is not None
        session, serving = self._session, self._session.upstream.connection
        end_s = trio.current_time() + remaining_s
        lead_s = min(session.limits.rollover_s, remaining_s / 2)
        connection = None
        with trio.CancelScope() as self._clock:
            await trio.sleep_until(end_s - lead_s)
            connection = await self._dial_until(end_s)
        if connection is None:
            return  # what happens then happens as with any upstream that is lost
        self._clock = None
        try:
            with trio.move_on_at(end_s - min(_FORCED_S, lead_s / 4)):
                await session.upstream_edge.quiet.boundary()
            if session.upstream.connection is serving and session.ending is None:
                await session.attach_upstream(connection)
        except ConnectionLost as exc:
            self.lost(exc.closing)
        finally:
            # Nothing else would close one that is not needed. (This finishes under cancellation.)
            if session.upstream.connection is not connection:
                await connection.close(GOING_AWAY, "")

    async def _dial_until(self, end_s: float) -> Connection | None:
        assert self.redial is not None
        tries = 0
        while trio.current_time() < end_s:
            try:
                return await self.redial()
            except (Refused, *FAILURES) as exc:
                say = "session %s: no upstream for the time after this one: %s"
                log.warning(say, self._session.id, _why(exc))
                delay_s = min(FIRST_DELAY_S * 2**tries, MAX_DELAY_S)
                await trio.sleep(max(_spread(delay_s / 2, delay_s), retry_after_s(exc)))
                tries += 1
        return None


_spread = random.SystemRandom().uniform


def _why(failure: Exception) -> str:
    return str(failure) or "none answered in time"  # trio.TooSlowError has no words


def retry_after_s(failure: Exception) -> float:
    """For how long a server asks not to be asked again; 0 where it does not say in seconds."""
    said = failure.headers.get("retry-after") if isinstance(failure, DialRefused) else None
    return float(said) if said is not None and said.isdigit() and len(said) < 6 else 0.0
