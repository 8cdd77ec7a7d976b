"""The veil: what the client does not get to see, because it did not cause it or a stage hid it.

It stands at the client edge, behind the walk, so that every stage still sees everything.
"""

import secrets
from collections import Counter
from dataclasses import dataclass

from rtpipe.api.event import HOST, Event, Json
from rtpipe.protocol import events, hidden
from rtpipe.protocol.catalogue import Client, Server

MARK = "rtpipe"
"""The metadata key by which a response is matched to the create that asked for it."""

_ECHO = {
    Client.ITEM_DELETE: Server.ITEM_DELETED,
    Client.ITEM_RETRIEVE: Server.ITEM_RETRIEVED,
    Client.ITEM_TRUNCATE: Server.ITEM_TRUNCATED,
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
_NAMES_ITEMS = frozenset({Client.ITEM_CREATE, Client.ITEM_DELETE, Client.ITEM_RETRIEVE, Client.ITEM_TRUNCATE})


@dataclass(frozen=True, slots=True)
class Asked:
    """A ``response.create`` of ours, known by its mark."""

    origin: str
    audible: bool


class Veil:
    """Stamps what the host and plugins send upstream, and hides what comes of it from the client."""

    def __init__(self) -> None:
        # Unguessable, so that no client can have an id that passes for ours.
        self._prefix = f"rtp_{secrets.token_hex(4)}_"
        self._count = 0
        self._asked: dict[str, Asked] = {}
        self._origins: dict[str, str] = {}
        self._echoes: Counter[tuple[str, str | None]] = Counter()
        self._swallowed: set[str] = set()
        self._lent: set[str] = set()
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

    def is_own(self, event_id: str | None) -> bool:
        """Whether the host gave this id."""
        return event_id is not None and event_id.startswith(self._prefix)

    def hide_item(self, item_id: str) -> None:
        """Keep an item from the client, from now on."""
        self.hidden_items.add(item_id)
        self._speaking.add(item_id)
        self._refresh()

    def stamp(self, event: Event) -> Event:
        """An event of the host's or a plugin's, with our ids and marks, as the upstream is to get it."""
        data = events.with_event_id(event.data, self.own_id())
        item_id = events.item_id_of(data)
        if event.type == Client.ITEM_CREATE:
            if item_id is None:
                item_id = self.own_id()
                data = events.with_item_id(data, item_id)
            self.hidden_items.add(item_id)
        elif event.type == Client.RESPONSE_CREATE:
            mark = self.own_id()
            self._asked[mark] = Asked(event.origin, event.audible or event.origin == HOST)
            data = events.with_create_metadata(data, {MARK: mark})
        return event.replace(data)

    def signed(self, event: Event) -> Event:
        """A server event of the host's or a plugin's: typed clients expect an ``event_id``."""
        data = event.data
        if events.event_id_of(data) is not None:
            return event
        return event.replace(events.with_event_id(data, self.own_id()))

    def leaving(self, event: Event) -> None:
        """An event of ours goes to the upstream now: its echo is not for the client."""
        if event.type in _ECHO:
            self._echoes[_ECHO[event.type], events.item_id_of(event.data)] += 1

    def swallow(self, data: Json) -> None:
        """Keep this server event from the client when its walk is over."""
        if (event_id := events.event_id_of(data)) is not None:
            self._swallowed.add(event_id)

    def lend_id(self) -> str:
        """An id for a client's event that has none; the client never sees it."""
        event_id = self.own_id()
        self._lent.add(event_id)
        return event_id

    def origin_of(self, response_id: str | None) -> str | None:
        """The stage or host that asked for a response; None when the client or the upstream did."""
        return self._origins.get(response_id or "")

    def observe(self, kind: str, data: Json) -> None:
        """Learn from a server event, before it walks, which ids are ours or belong to something hidden."""
        response_id, item_id = events.response_id_of(data), events.item_id_of(data)
        if kind == Server.RESPONSE_CREATED and response_id is not None:
            asked = self._asked.pop(str(events.response_metadata(data).get(MARK)), None)
            if asked is not None:
                self._origins[response_id] = asked.origin
                if not asked.audible:
                    self._hidden_responses.add(response_id)
        elif kind == Server.OUTPUT_ITEM_ADDED and response_id in self._hidden_responses and item_id:
            self.hide_item(item_id)
        elif kind == Server.OUTPUT_ITEM_DONE and item_id is not None:
            self._speaking.discard(item_id)
        elif kind in (Server.ITEM_ADDED, Server.ITEM_CREATED) and item_id is not None:
            self._previous[item_id] = data.get("previous_item_id")
        elif kind == Server.ERROR:
            self._forget_refused(data)
        self._refresh()

    def shown(self, event: Event) -> Event | None:
        """The event as the client may see it, or None. Called behind the walk."""
        if self._passes(event):
            return event
        data = event.data
        if events.event_id_of(data) in self._swallowed:
            self._swallowed.discard(events.event_id_of(data) or "")
            return None
        if event.type == Server.ERROR and events.error_of(data)[1] in self._lent:
            return event.replace(events.without_error_cause(data))
        if self._is_echo(event.type, data):
            return None
        if event.type == Server.RESPONSE_DONE:
            self._origins.pop(events.response_id_of(data) or "", None)
        if events.item_id_of(data) in self.hidden_items and (call_id := events.call_id_of(data)):
            self._hidden_calls.add(call_id)
        seen = hidden.strip(data, self.hidden_items, self._hidden_responses, self._previous_of_hidden())
        if seen is None:
            if event.type == Server.RESPONSE_DONE:
                self._hidden_responses.discard(events.response_id_of(data) or "")
                self._refresh()
            return None
        seen = events.without_response_metadata(seen, MARK)
        return event if seen is data else event.replace(seen)

    def refuses(self, kind: str, data: Json) -> bool:
        """Whether a client event is about something the client cannot know of."""
        if kind not in _NAMES_ITEMS or not self.hidden_items:
            return False
        return hidden.mentions(data, self.hidden_items, self._hidden_calls)

    def _previous_of_hidden(self) -> dict[str, str | None]:
        return {item: self._previous.get(item) for item in self.hidden_items}

    def _passes(self, event: Event) -> bool:
        if event.type in _DELTAS:
            return not any(own in event.payload for own in self._live)
        if event.type == Server.ERROR:
            return not self._swallowed and self._prefix.encode() not in event.payload
        return not (
            self.hidden_items or self._hidden_responses or self._origins or self._echoes or self._swallowed
        )

    def _is_echo(self, kind: str, data: Json) -> bool:
        if kind == Server.ERROR:
            return self.is_own(events.error_of(data)[1])
        key = (kind, events.item_id_of(data))
        if key not in self._echoes:
            return False
        self._echoes[key] -= 1
        if not self._echoes[key]:
            del self._echoes[key]
        return True

    def _forget_refused(self, data: Json) -> None:
        """A refused create of ours will never be answered: its mark is free again."""
        # The error names the event, not the mark; marks are given right after their event's id.
        event_id = events.error_of(data)[1]
        if self.is_own(event_id):
            number = int(str(event_id).removeprefix(self._prefix))
            self._asked.pop(f"{self._prefix}{number + 1}", None)

    def _refresh(self) -> None:
        # Only what is being spoken now has deltas, so only that is looked for in each of them.
        self._live = tuple(name.encode() for name in (*self._hidden_responses, *self._speaking))
