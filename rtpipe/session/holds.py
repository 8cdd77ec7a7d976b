"""One queue of held events: one session, one stage, one direction."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rtpipe.api.event import Event, Json, UnreadableEvent
from rtpipe.protocol.catalogue import Client, Direction
from rtpipe.protocol.ordering import kind_of_create, must_wait
from rtpipe.session.limits import Budget, Share, charge


@dataclass(slots=True, eq=False)
class Held:
    """An event in the queue: held by its stage under *key*, or (no key) waiting behind one that is."""

    event: Event
    kind: str
    """How the ordering table sorts it."""
    key: str | None
    since_s: float
    first_s: float | None = None
    """Since when nothing before it keeps it from going: its age counts from then on."""
    put_back: bool = False
    released: bool = False

    @property
    def may_go(self) -> bool:
        return self.key is None or self.released


class HoldQueue:
    """Keeps held events and what waits behind them, in order, bounded in bytes."""

    # Whether an event waits depends on kinds alone, and few kinds stand for thousands of events.

    def __init__(self, direction: Direction, limit_bytes: int, in_all: Budget | None = None) -> None:
        self._direction = direction
        self._limit_bytes = limit_bytes
        self._share = Share(in_all or Budget())
        self._entries: list[Held] = []
        self._kinds: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Event]:
        return (entry.event for entry in self._entries)

    def blocks(self, kind: str) -> bool:
        """Whether the ordering table makes an event of this kind wait behind something in the queue."""
        return any(must_wait(kind, waiting, self._direction) for waiting in self._kinds)

    def add(self, entry: Held) -> bool:
        """Queue an event; returns False when the queue is full. An empty one takes an event of any size: what
        a leg may send, a stage can hold.

        What is put back comes before everything but what was put back earlier.
        """
        if self._entries and self._share.held + charge(entry.event) > self._limit_bytes:
            return False
        if not self._share.take(charge(entry.event)):
            return False
        place = sum(each.put_back for each in self._entries) if entry.put_back else len(self._entries)
        entry.first_s = None if self.blocks(entry.kind) else entry.since_s
        self._entries.insert(place, entry)
        self._kinds[entry.kind] += 1
        return True

    def holds(self, key: str) -> bool:
        """Whether anything is held under *key* and not yet released."""
        return any(entry.key == key and not entry.released for entry in self._entries)

    def release(self, key: str, event: Event | None = None) -> bool:
        """Mark what is held under *key* as free to go, as *event* if given. Returns whether there was any.

        Raises ``ValueError`` for an event of another type: it would need another place in the queue.
        """
        found = [entry for entry in self._entries if entry.key == key and not entry.released]
        for entry in found:
            if event is not None:
                if event.type != entry.event.type:
                    raise ValueError(f"a held {entry.event.type} cannot go on as {event.type}")
                self._share.hold(self._share.held + charge(event) - charge(entry.event))
                entry.event = event
            entry.released = True
        return bool(found)

    def take(self) -> Held | None:
        """Take out the first event that may go and that nothing before it blocks."""
        entry = next((entry for entry in self._unblocked() if entry.may_go), None)
        if entry is not None:
            self._remove(entry)
        return entry

    def drop(self, key: str) -> list[Held]:
        """Take out what is held under *key*, whether released or not."""
        return self._take_all([entry for entry in self._entries if entry.key == key])

    def expire(self, now_s: float, age_s: float) -> list[Held]:
        """Take out what its stage alone has kept for *age_s*. What merely waits behind it goes on."""
        first = list(self._unblocked())
        since = {entry: now_s if entry.first_s is None else entry.first_s for entry in first}
        for entry in self._entries:
            entry.first_s = since.get(entry)
        return self._take_all([e for e in first if not e.may_go and now_s - since[e] >= age_s])

    def clear(self) -> list[Held]:
        """Take out everything."""
        return self._take_all(list(self._entries))

    def _unblocked(self) -> Iterator[Held]:
        """The entries that nothing before them keeps from going."""
        before: set[str] = set()
        for entry in self._entries:
            if not any(must_wait(entry.kind, kind, self._direction) for kind in before):
                yield entry
            before.add(entry.kind)

    def _take_all(self, entries: list[Held]) -> list[Held]:
        for entry in entries:
            self._remove(entry)
        return entries

    def _remove(self, entry: Held) -> None:
        self._entries.remove(entry)
        self._share.give(charge(entry.event))
        self._kinds[entry.kind] -= 1
        if not self._kinds[entry.kind]:
            del self._kinds[entry.kind]


def kind_of(event: Event, session: Json) -> str:
    """How the ordering table sorts an event; *session* is the configuration in force."""
    if event.type != Client.RESPONSE_CREATE:
        return event.type
    try:
        return kind_of_create(event.data, heard=event.is_heard, session=session)
    except UnreadableEvent:
        return event.type
