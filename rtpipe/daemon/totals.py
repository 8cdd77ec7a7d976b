"""What passed since the daemon started.

Sessions count for themselves: that is added up when somebody asks, and kept here once they have ended. The
rest is counted from facts.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

import trio

from rtpipe.api import facts
from rtpipe.api.event import CLIENT, HOST
from rtpipe.api.facts import Fact
from rtpipe.protocol.catalogue import CLIENT_TYPES, DOWNSTREAM, SERVER_TYPES, UPSTREAM, Direction
from rtpipe.session.meters import Count
from rtpipe.session.responses import CALLER
from rtpipe.session.session import Session

DIRECTIONS: tuple[Direction, ...] = (UPSTREAM, DOWNSTREAM)
OTHER = "other"
_CATALOGUE = {UPSTREAM: CLIENT_TYPES, DOWNSTREAM: SERVER_TYPES}
_WORDS = 100
"""How many values of a label are told apart where plugins or callers may make them up."""

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Bounds of what callers wait for."""
LAG_EVERY_S = 0.5
LAGS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Labels = tuple[str, ...]


class Histogram:
    """How often a quantity was within which bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Totals:
    """Plain counters by the names of their metrics: a bounded number of them, whatever clients send."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter[Labels]] = {}
        self.distributions: dict[str, dict[Labels, Histogram]] = {}
        self._words: dict[str, set[str]] = {}
        self._passed: tuple[Counter[Labels], Counter[Labels], Counter[Labels]] = (
            Counter(),
            Counter(),
            Counter(),
        )
        self.live: set[Session] = set()
        """Sessions from before they are in service until they are closed."""
        self.store_failures = 0
        self._in_service: set[str] = set()

    def begin(self, session: Session) -> None:
        """Count what passes in *session* from now on."""
        self.live.add(session)

    def end(self, session: Session) -> None:
        """*session* is closed: keep what it counted."""
        self.live.remove(session)
        _add(session, *self._passed)

    async def measure_lag(self) -> None:
        """Count how much later than due the loop comes to this task, until cancelled."""
        while True:
            due = trio.current_time() + LAG_EVERY_S
            await trio.sleep_until(due)
            self._observe("rtpipe_loop_lag_seconds", trio.current_time() - due, bounds=LAGS)

    def fact(self, fact: Fact) -> None:
        """Count what became of something."""
        match fact:
            case facts.SessionOpened():
                self._in_service.add(fact.session)
                self._count("rtpipe_sessions_opened")
            case facts.SessionClosed() if fact.session in self._in_service:
                self._in_service.remove(fact.session)
                self._closed(fact)
            case facts.Refused():
                self._refused(fact)
            case facts.TurnStarted():
                self._count("rtpipe_turns", fact.by)
            case facts.ResponseEnded():
                self._response(fact)
            case facts.ToolCalled():
                name, status = self._word("tool", fact.name), self._word("status", fact.status)
                self._observe("rtpipe_tool_seconds", fact.duration_s, name, status)
            case facts.Waited():
                outcome = self._word("outcome", fact.outcome)
                self._observe("rtpipe_wait_seconds", fact.duration_s, fact.stage, outcome)
            case facts.Spent():
                model = self._word("model", fact.model)
                self._count("rtpipe_cost_usd", model, amount=fact.micro_usd / 1e6)
                self._count("rtpipe_image_cost_usd", model, amount=fact.image_micro_usd / 1e6)
            case facts.LegChanged():
                self._leg(fact)
            case facts.Alerted():
                self._count("rtpipe_alerts", self._word("alert", fact.name))

    def passed(self) -> tuple[Counter[Labels], Counter[Labels], Counter[Labels]]:
        """Events by (direction, fate); frames, and their payload bytes, by (direction, type)."""
        events, frames, payload = (Counter(each) for each in self._passed)
        for session in self.live:
            _add(session, events, frames, payload)
        return events, frames, payload

    def _closed(self, fact: facts.SessionClosed) -> None:
        cause = self._word("cause", fact.cause)
        self._count("rtpipe_sessions_ended", cause, _code(fact.code))
        self._observe("rtpipe_session_seconds", fact.duration_s, bounds=(10, 30, 60, 180, 600, 1800, 3600))

    def _refused(self, fact: facts.Refused) -> None:
        code = self._word("code", fact.code)
        if fact.session:
            self._count("rtpipe_events_refused", self._word("stage", fact.stage), code)
        elif fact.stage == HOST:
            self._count("rtpipe_connections_refused", code)

    def _response(self, fact: facts.ResponseEnded) -> None:
        model = self._word("model", fact.model)
        status = fact.status if fact.status in _STATUSES else OTHER
        self._count("rtpipe_responses", model, status)
        if status == "failed":
            self._count("rtpipe_response_failures", self._word("failure", fact.reason))
        if fact.interrupted_by in (CALLER, CLIENT):
            self._count("rtpipe_barge_ins", fact.interrupted_by)
        for kind, count in fact.usage.items():
            if count and kind not in ("total", "seconds"):
                self._count("rtpipe_tokens", model, kind, amount=count)
        if fact.first_audio_s is not None:
            self._observe("rtpipe_first_audio_seconds", fact.first_audio_s, model)
        if fact.turn_latency_s is not None:
            self._observe("rtpipe_turn_latency_seconds", fact.turn_latency_s, model)

    def _leg(self, fact: facts.LegChanged) -> None:
        if fact.change in ("lost", "parked"):
            code = fact.cause.partition(" ")[0]  # what comes behind it are the peer's words
            self._count("rtpipe_disconnects", fact.leg, _code(int(code)) if code.isdecimal() else OTHER)
        elif fact.change in ("replaced", "resumed"):
            self._count("rtpipe_reconnects", fact.leg)

    def _count(self, name: str, *labels: str, amount: float = 1) -> None:
        counter: Counter[Labels] = self.counters.setdefault(name, Counter())
        counter[labels] += amount  # type: ignore[assignment]

    def _observe(self, name: str, value: float, *labels: str, bounds: tuple[float, ...] = SECONDS) -> None:
        family = self.distributions.setdefault(name, {})
        if labels not in family:
            family[labels] = Histogram(bounds)
        family[labels].add(value)

    def _word(self, label: str, word: str) -> str:
        known = self._words.setdefault(label, set())
        if word in known or len(known) < _WORDS:
            known.add(word)
            return word
        return OTHER


_STATUSES = frozenset({"completed", "cancelled", "failed", "incomplete"})


def _code(code: int) -> str:
    """Codes that applications make up are one."""
    return str(code) if code < 3000 else "3000-4999"


def bytes_of(session: Session, direction: Direction) -> int:
    """Payload bytes that passed the upstream edge of one session."""
    return session.meter.total(direction)[1]


def counts_of(session: Session) -> Mapping[tuple[str, str], Count]:
    """What passed the upstream edge of one session, by direction and type; "" for types beyond its bound."""
    return session.meter.counts


def _add(
    session: Session, events: Counter[Labels], frames: Counter[Labels], payload: Counter[Labels]
) -> None:
    for direction in DIRECTIONS:
        for fate, count in session.lane(direction).tally.fates.items():
            events[direction, fate] += count
    for (way, kind), passed in counts_of(session).items():
        label = kind if kind in _CATALOGUE[way] else OTHER
        frames[way, label] += passed.frames
        payload[way, label] += passed.bytes
