"""The veil: what the client does not get to see, because it did not cause it or a stage hid it.

It stands at the client edge, behind the walk, so that every stage still sees everything.
"""

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rtpipe.api.event import Event, Json
from rtpipe.protocol import events, hidden, items
from rtpipe.protocol.catalogue import Client, Server

MARK = "rtpipe"
"""The metadata key by which a response is matched to the create that asked for it."""

_ECHO = {
    Client.ITEM_DELETE: Server.ITEM_DELETED,
    Client.ITEM_RETRIEVE: Server.ITEM_RETRIEVED,
    Client.ITEM_TRUNCATE: Server.ITEM_TRUNCATED,
    Client.AUDIO_CLEAR: Server.AUDIO_CLEARED,
}
_DELTAS = frozenset(
    {
        Server.AUDIO_DELTA,
        Server.TRANSCRIPT_DELTA,
        Server.TEXT_DELTA,
        Server.ARGUMENTS_DELTA,
        Server.MCP_ARGUMENTS_DELTA,
    }
)
_NAMES_ITEMS = frozenset(
    {
        Client.ITEM_CREATE,
        Client.ITEM_DELETE,
        Client.ITEM_RETRIEVE,
        Client.ITEM_TRUNCATE,
        Client.RESPONSE_CREATE,
    }
)
_UNSAID = 1_000_000
"""More ids than a session gives in the time between two writings of it."""
_LENT = "c"
"""How the ids end that are given to a client's events."""
Echo = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A ``response.create`` of ours, known by its mark."""

    origin: str
    audible: bool


class Veil:
    """Stamps what the host and plugins send upstream, and hides what comes of it from the client."""

    def __init__(self) -> None:
        # Clients see ids of ours in what we tell them, so nothing secret hangs on an id: marks are another
        # matter, they decide what is shown.
        self._prefix = f"rtp_{secrets.token_hex(4)}_"
        self._count = 0
        self._asked: dict[str, Asked] = {}
        self._marks: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self._echoes: Counter[Echo] = Counter()
        self._echo_of: dict[str, Echo] = {}
        self._swallowed: set[str] = set()
        self.hidden_items: set[str] = set()
        self._hidden_calls: set[str] = set()
        self._hidden_responses: set[str] = set()
        self._previous: dict[str, str | None] = {}
        self._speaking: set[str] = set()
        self._live: tuple[bytes, ...] = ()

    def own_id(self) -> str:
        """A new id of ours; at most 32 characters, the upstream's limit for item ids."""
        self._count += 1
        return f"{self._prefix}{self._count}"

    @property
    def own_ids(self) -> tuple[str, int]:
        """How the ids begin that the host gives, and how many it has given."""
        return self._prefix, self._count

    def restore(self, own_ids: tuple[str, int]) -> None:
        """Go on giving ids where another process may have gone on since it said so: none is given twice."""
        self._prefix, count = own_ids
        self._count = count + _UNSAID

    def recall(self, log: Iterable[Json], hidden: set[str]) -> None:
        """The items of the conversation in their order, and the ids of those that are hidden."""
        previous: str | None = None
        for item in log:
            item_id = str(item.get("id"))
            self._previous[item_id], previous = previous, item_id
            if item_id in hidden and (call_id := items.call_id_of(item)) is not None:
                self._hidden_calls.add(call_id)
        self.hidden_items |= hidden

    def is_own(self, event_id: str | None) -> bool:
        """Whether the host gave this id."""
        return event_id is not None and event_id.startswith(self._prefix)

    def hide_item(self, item_id: str) -> None:
        """Keep an item from the client, from now on."""
        if not isinstance(item_id, str) or not item_id:
            raise TypeError("hide() wants the id of an item")
        self.hidden_items.add(item_id)
        self._speaking.add(item_id)
        self._refresh()

    def stamp(self, event: Event) -> Event:
        """An event of the host's or a plugin's, with our ids and marks, as the upstream is to get it."""
        event_id = self.own_id()
        data = events.with_event_id(event.data, event_id)
        item_id = events.item_id_of(data)
        if event.type == Client.ITEM_CREATE:
            if item_id is None:
                item_id = self.own_id()
                data = events.with_item_id(data, item_id)
            self.hidden_items.add(item_id)
        elif event.type == Client.RESPONSE_CREATE:
            data = events.with_create_metadata(data, {MARK: secrets.token_hex(8)})
        return event.replace(data)

    def signed(self, event: Event) -> Event:
        """A server event of the host's or a plugin's: typed clients expect an ``event_id``."""
        data = event.data
        if events.event_id_of(data):
            return event
        return event.replace(events.with_event_id(data, self.own_id()))

    def leaving(self, event: Event) -> None:
        """An event of ours goes to the upstream now, perhaps once more: what comes of it is ours."""
        mark = (
            events.response_metadata(event.data).get(MARK) if event.type == Client.RESPONSE_CREATE else None
        )
        if isinstance(mark, str):
            self._asked[mark] = Asked(event.origin, event.is_heard)
            self._marks[events.event_id_of(event.data) or ""] = mark
        if event.type in _ECHO:
            echo = (_ECHO[event.type], events.item_id_of(event.data))
            self._echoes[echo] += 1
            if (event_id := events.event_id_of(event.data)) is not None:
                self._echo_of[event_id] = echo

    def swallow(self, data: Json) -> None:
        """Keep this server event from the client when its walk is over."""
        if (event_id := events.event_id_of(data)) is not None:
            self._swallowed.add(event_id)

    def lend_id(self) -> str:
        """An id for a client's event that has none; the client never sees it."""
        return f"{self.own_id()}{_LENT}"

    def is_lent(self, event_id: str | None) -> bool:
        """Whether the host gave this id to a client's event."""
        return self.is_own(event_id) and str(event_id).endswith(_LENT)

    def origin_of(self, response_id: str | None) -> str | None:
        """The stage or host that asked for a response; None when the client or the upstream did."""
        return self._origins.get(response_id or "")

    def observe(self, kind: str, data: Json) -> None:
        """Learn from a server event, before it walks, which ids are ours or belong to something hidden."""
        response_id, item_id = events.response_id_of(data), events.item_id_of(data)
        if kind == Server.RESPONSE_CREATED and response_id is not None:
            mark = str(events.response_metadata(data).get(MARK))
            asked = self._asked.pop(mark, None)
            if asked is not None:
                self._marks = {event_id: each for event_id, each in self._marks.items() if each != mark}
                self._origins[response_id] = asked.origin
                if not asked.audible:
                    self._hidden_responses.add(response_id)
        elif kind == Server.OUTPUT_ITEM_ADDED and response_id in self._hidden_responses and item_id:
            self.hide_item(item_id)
        elif kind in (Server.ITEM_ADDED, Server.ITEM_CREATED) and item_id is not None:
            self._previous[item_id] = data.get("previous_item_id")
        elif kind == Server.ERROR:
            self._forget_refused(data)
        self._refresh()

    def shown(self, event: Event) -> Event | None:
        """The event as the client may see it, or None. Called behind the walk."""
        if self.passes(event.type, event.payload):
            return event
        data = event.data
        if events.event_id_of(data) in self._swallowed:
            self._swallowed.discard(events.event_id_of(data) or "")
            return None
        if event.type == Server.ERROR and self.is_lent(events.error_of(data)[1]):
            return event.replace(events.without_error_cause(data))
        if self._is_echo(event.type, data):
            return None
        response_id = events.response_id_of(data) or ""
        ours = response_id in self._origins
        if event.type == Server.RESPONSE_DONE:
            self._origins.pop(response_id, None)
        if events.item_id_of(data) in self.hidden_items and (call_id := events.call_id_of(data)):
            self._hidden_calls.add(call_id)
        seen = hidden.strip(data, self.hidden_items, self._hidden_responses, self._previous_of_hidden())
        if event.type in (Server.RESPONSE_DONE, Server.OUTPUT_ITEM_DONE):
            # Only now: what comes before it may have been held on its way.
            self._speaking.discard(events.item_id_of(data) or "")
            if event.type == Server.RESPONSE_DONE:
                self._hidden_responses.discard(response_id)
            self._refresh()
        if seen is None:
            return None
        if ours:
            seen = events.without_response_metadata(seen, MARK)
        return event if seen is data else event.replace(seen)

    def refuses(self, kind: str, data: Json) -> bool:
        """Whether a client event is about something the client cannot know of."""
        if kind not in _NAMES_ITEMS or not self.hidden_items:
            return False
        return hidden.mentions(data, self.hidden_items, self._hidden_calls)

    def may_concern(self, payload: bytes) -> bool:
        """Whether a text that cannot be read may be about something hidden."""
        names = (*self.hidden_items, *self._hidden_responses, *self._hidden_calls, self._prefix)
        return any(name.encode() in payload for name in names)

    def upstream_replaced(self) -> None:
        """Another upstream takes over: what the last one still owed will never come."""
        for pending in (self._asked, self._marks, self._origins, self._echoes, self._echo_of):
            pending.clear()

    def _previous_of_hidden(self) -> dict[str, str | None]:
        return {item: self._previous.get(item) for item in self.hidden_items}

    def passes(self, kind: str, payload: bytes) -> bool:
        """Whether there is nothing in an event that the client must not see."""
        if kind in _DELTAS:
            return not self._live or not any(own in payload for own in self._live)
        if kind == Server.ERROR:
            return not self._swallowed and self._prefix.encode() not in payload
        return not (
            self.hidden_items or self._hidden_responses or self._origins or self._echoes or self._swallowed
        )

    def _is_echo(self, kind: str, data: Json) -> bool:
        if kind == Server.ERROR:
            return self.is_own(events.error_of(data)[1])
        key = (kind, events.item_id_of(data))
        if key not in self._echoes:
            return False
        self._heard_of(key)
        return True

    def _heard_of(self, echo: Echo) -> None:
        """One echo less to wait for."""
        self._echoes[echo] -= 1
        if self._echoes[echo] <= 0:
            del self._echoes[echo]
        sender = next((event_id for event_id, each in self._echo_of.items() if each == echo), None)
        self._echo_of.pop(sender or "", None)

    def _forget_refused(self, data: Json) -> None:
        """A refused event of ours will never be answered."""
        event_id = events.error_of(data)[1] or ""
        self._asked.pop(self._marks.pop(event_id, ""), None)
        if (echo := self._echo_of.get(event_id)) is not None:
            self._heard_of(echo)

    def _refresh(self) -> None:
        # Only what is being spoken now has deltas, so only that is looked for in each of them.
        self._live = tuple(name.encode() for name in (*self._hidden_responses, *self._speaking))
