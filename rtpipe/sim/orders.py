"""Orders for faults of a running server: for the door, for sessions that live, for those to come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from .faults import Fault, FaultError, Refusal, parse
from .served import Served

LIVE, NEXT = "live", "next"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /sim/faults. `session`: "live" (every session that is open), "next" (the first that
    opens), or a session's id."""

    fault: str
    session: str = LIVE


@dataclass
class _Counted:
    """`left`: handshakes; None: without end."""

    refusal: Refusal
    left: int | None


class Orders:
    def __init__(self, standing: Iterable[str]) -> None:
        """`standing`: of the options; those for sessions are ordered by each session itself."""
        self._refusals = [
            _Counted(fault, fault.times) for fault in map(parse, standing) if isinstance(fault, Refusal)
        ]
        self._next: list[Fault] = []
        self._live: list[Served] = []

    async def take(self, body: bytes) -> dict[str, Any]:
        """Take an order; the ids of the sessions that were given it. Raises ValueError."""
        order = msgspec.json.decode(body, type=Order)
        fault = parse(order.fault)
        if isinstance(fault, Refusal):
            self._refusals.append(_Counted(fault, fault.times))
            return {"sessions": []}
        if order.session == NEXT:
            self._next.append(fault)
            return {"sessions": []}
        meant = [served for served in self._live if order.session in (LIVE, served.id)]
        if not meant:
            raise FaultError(f"no session is open that {order.session!r:.100} means")
        for served in meant:
            await served.faults.order(fault)
        return {"sessions": [served.id for served in meant]}

    def view(self) -> dict[str, Any]:
        """The sessions that are open, with the number of events that have passed in each."""
        return {
            "sessions": [{"id": served.id, "events": served.faults.passed} for served in self._live],
            "next": [fault.words for fault in self._next],
            "handshakes": [counted.refusal.words for counted in self._refusals],
        }

    def clear(self) -> None:
        """Forget what has not happened yet."""
        self._next.clear()
        self._refusals.clear()
        for served in self._live:
            served.faults.clear()

    def refusal(self) -> Refusal | None:
        """What becomes of the next handshake, which is counted; None: it is let in."""
        if not self._refusals:
            return None
        first = self._refusals[0]
        if first.left is not None:
            first.left -= 1
            if not first.left:
                del self._refusals[0]
        return first.refusal

    def for_next(self) -> list[Fault]:
        """The faults of the session that opens now."""
        taken, self._next = self._next, []
        return taken

    @contextmanager
    def while_live(self, served: Served) -> Iterator[None]:
        self._live.append(served)
        try:
            yield
        finally:
            self._live.remove(served)
