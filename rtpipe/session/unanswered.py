"""What went to the upstream and has not been answered: it is sent again to the one that takes over.

A ``session.update`` is not kept here, for `Configuration` keeps those, nor is audio, which is never answered.
"""

from collections import deque
from collections.abc import Iterator

from rtpipe.api.event import Event
from rtpipe.protocol import events, items
from rtpipe.protocol.catalogue import Client, Json, Server

_KEPT = 1000
"""How many unanswered events are remembered; the oldest is forgotten first."""

_ANSWER = {
    Server.ITEM_ADDED: Client.ITEM_CREATE,
    Server.ITEM_CREATED: Client.ITEM_CREATE,
    Server.ITEM_DELETED: Client.ITEM_DELETE,
    Server.ITEM_RETRIEVED: Client.ITEM_RETRIEVE,
    Server.ITEM_TRUNCATED: Client.ITEM_TRUNCATE,
}
ANSWERS = frozenset({*_ANSWER, Server.ERROR, Server.RESPONSE_CREATED})
"""The server events that it has to be shown."""
_KINDS = frozenset({*_ANSWER.values(), Client.RESPONSE_CREATE})


class Unanswered:
    """The events in the order they were sent, each until its answer comes."""

    def __init__(self) -> None:
        self._sent: deque[Event] = deque(maxlen=_KEPT)

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._sent)

    def sent(self, event: Event) -> None:
        """An event goes out."""
        if event.type in _KINDS:
            self._sent.append(event)

    def item(self, kind: str, data: Json) -> None:
        """An item was added, deleted, retrieved or truncated."""
        wanted, item_id = _ANSWER.get(kind), events.item_id_of(data)
        if wanted is None:
            return
        for event in self._sent:
            if event.type != wanted:
                continue
            named = events.item_id_of(event.data)
            if named == item_id or (named is None and _is_alike(event.data, data)):
                self._sent.remove(event)
                return

    def response(self, origin: str) -> Event | None:
        """A response has begun that *origin* asked for. Returns what asked for it."""
        for event in self._sent:
            if event.type == Client.RESPONSE_CREATE and event.origin == origin:
                self._sent.remove(event)
                return event
        return None

    def refused(self, event_id: str | None) -> None:
        """The upstream does not do what this event wants. An error that names none is taken to be about the
        oldest without an id: they are answered in order, and one asked again would be answered twice."""
        for event in self._sent:
            if events.event_id_of(event.data) == event_id:
                self._sent.remove(event)
                return

    def take(self) -> list[Event]:
        """All of it, to be sent again."""
        taken = list(self._sent)
        self._sent.clear()
        return taken


def _is_alike(create: Json, echo: Json) -> bool:
    """Whether an item may be the one of a create that gives it no id."""
    ours, theirs = events.item_of(create) or {}, events.item_of(echo) or {}
    return items.kind_of(ours) == items.kind_of(theirs)
