"""One queue of held events: one session, one stage, one direction."""

from collections import Counter
from dataclasses import dataclass

from rtpipe.api.event import Event
from rtpipe.protocol.catalogue import Direction
from rtpipe.protocol.ordering import must_wait

OVERHEAD_BYTES = 1024
"""What an event is charged besides its payload, so that many small ones are bounded too."""


@dataclass(slots=True, eq=False)
class Held:
    """An event in the queue: held by its stage under *key*, or (no key) waiting behind one that is."""

    event: Event
    key: str | None
    since_s: float
    released: bool = False

    @property
    def may_go(self) -> bool:
        return self.key is None or self.released


class HoldQueue:
    """Keeps held events and what waits behind them, in order, bounded in bytes."""

    # Whether an event waits depends on types alone, and few types stand for thousands of events.

    def __init__(self, direction: Direction, limit_bytes: int) -> None:
        self._direction = direction
        self._limit_bytes = limit_bytes
        self._entries: list[Held] = []
        self._types: Counter[str] = Counter()
        self._bytes = 0
        self._resume_at: int | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def blocks(self, event: Event) -> bool:
        """Whether the ordering table makes *event* wait behind something in the queue."""
        return any(must_wait(event.type, kind, self._direction) for kind in self._types)

    def add(self, event: Event, key: str | None, now_s: float) -> bool:
        """Queue an event; returns False when the queue is full. An empty one takes an event of any size: what
        a leg may send, a stage can hold.

        An event that was taken out with ``take`` and is held again gets its old place back.
        """
        if self._entries and self._bytes + _charge(event) > self._limit_bytes:
            return False
        place = len(self._entries) if self._resume_at is None else self._resume_at
        self._entries.insert(place, Held(event, key, now_s))
        self._bytes += _charge(event)
        self._types[event.type] += 1
        return True

    def release(self, key: str) -> bool:
        """Mark what is held under *key* as free to go. Returns whether there was any."""
        found = [entry for entry in self._entries if entry.key == key and not entry.released]
        for entry in found:
            entry.released = True
        return bool(found)

    def take(self) -> Held | None:
        """Take out the first event that may go and that nothing before it blocks."""
        before: set[str] = set()
        for place, entry in enumerate(self._entries):
            if entry.may_go and not any(
                must_wait(entry.event.type, kind, self._direction) for kind in before
            ):
                self._remove(entry)
                self._resume_at = place
                return entry
            before.add(entry.event.type)
        self._resume_at = None
        return None

    def walked(self) -> None:
        """The event last taken out has finished its walk."""
        self._resume_at = None

    def drop(self, key: str) -> list[Held]:
        """Take out what is held under *key*, whether released or not."""
        return self._take_all([entry for entry in self._entries if entry.key == key])

    def expire(self, before_s: float) -> list[Held]:
        """Take out what has been held since before *before_s*. What merely waits behind it goes on."""
        return self._take_all([e for e in self._entries if not e.may_go and e.since_s <= before_s])

    def clear(self) -> list[Held]:
        """Take out everything."""
        return self._take_all(list(self._entries))

    def _take_all(self, entries: list[Held]) -> list[Held]:
        for entry in entries:
            self._remove(entry)
        return entries

    def _remove(self, entry: Held) -> None:
        place = self._entries.index(entry)
        del self._entries[place]
        if self._resume_at is not None and place < self._resume_at:
            # Dropped while another one walks: its place moves up.
            self._resume_at -= 1
        self._bytes -= _charge(entry.event)
        self._types[entry.event.type] -= 1
        if not self._types[entry.event.type]:
            del self._types[entry.event.type]


def _charge(event: Event) -> int:
    return len(event.payload) + OVERHEAD_BYTES
