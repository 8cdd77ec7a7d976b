"""What passed since the daemon started.

Sessions count for themselves: that is added up when somebody asks, and kept here once they have ended.
"""

from collections import Counter
from collections.abc import Mapping

from rtpipe.api.event import HOST
from rtpipe.api.facts import Fact, Refused, SessionClosed, SessionOpened
from rtpipe.protocol.catalogue import CLIENT_TYPES, DOWNSTREAM, SERVER_TYPES, UPSTREAM, Direction
from rtpipe.session.meters import Count
from rtpipe.session.session import Session

DIRECTIONS: tuple[Direction, ...] = (UPSTREAM, DOWNSTREAM)
OTHER = "other"
_CATALOGUE = {UPSTREAM: CLIENT_TYPES, DOWNSTREAM: SERVER_TYPES}
_WORDS = 200
"""How many codes and causes are told apart; plugins may make them up. The rest count as other."""

Pairs = Counter[tuple[str, str]]


class Totals:
    """Plain counters. Whatever clients send, there is a bounded number of them."""

    def __init__(self) -> None:
        self.opened = 0
        self.ended: Counter[str] = Counter()
        """Sessions by who ended them."""
        self.refused: Counter[str] = Counter()
        """Connections that were not let in, by code."""
        self._events: Pairs = Counter()
        self._frames: Pairs = Counter()
        self._bytes: Pairs = Counter()
        self.live: set[Session] = set()
        """Sessions from before they are in service until they are closed."""
        self._in_service: set[str] = set()

    def begin(self, session: Session) -> None:
        """Count what passes in *session* from now on."""
        self.live.add(session)

    def end(self, session: Session) -> None:
        """*session* is closed: keep what it counted."""
        self.live.remove(session)
        _add(session, self._events, self._frames, self._bytes)

    def fact(self, fact: Fact) -> None:
        """Count what became of sessions and connections."""
        match fact:
            case SessionOpened():
                self.opened += 1
                self._in_service.add(fact.session)
            case SessionClosed() if fact.session in self._in_service:
                self._in_service.remove(fact.session)
                self.ended[_bounded(fact.cause, self.ended)] += 1
            case Refused() if fact.stage == HOST and not fact.session:
                self.refused[_bounded(fact.code, self.refused)] += 1

    def passed(self) -> tuple[Pairs, Pairs, Pairs]:
        """Events by (direction, fate); frames, and their payload bytes, by (direction, type)."""
        events, frames, payload = Counter(self._events), Counter(self._frames), Counter(self._bytes)
        for session in self.live:
            _add(session, events, frames, payload)
        return events, frames, payload


def bytes_of(session: Session, direction: Direction) -> int:
    """Payload bytes that passed the upstream edge of one session."""
    return sum(count.bytes for (way, _), count in counts_of(session).items() if way == direction)


def counts_of(session: Session) -> Mapping[tuple[str, str], Count]:
    """What passed the upstream edge of one session, by direction and type; "" for types beyond its bound."""
    return session.meter.counts


def _add(session: Session, events: Pairs, frames: Pairs, payload: Pairs) -> None:
    for direction in DIRECTIONS:
        for fate, count in session.lane(direction).tally.fates.items():
            events[direction, fate] += count
    for (way, kind), passed in counts_of(session).items():
        label = kind if kind in _CATALOGUE[way] else OTHER
        frames[way, label] += passed.frames
        payload[way, label] += passed.bytes


def _bounded(word: str, known: Counter[str]) -> str:
    return word if word in known or len(known) < _WORDS else OTHER
