"""Items of the conversation that the host tells an upstream which took over: nobody else sees the echoes."""

import logging
from typing import TYPE_CHECKING

from rtpipe.api.event import Event, Json
from rtpipe.protocol import events, items
from rtpipe.protocol.catalogue import Server
from rtpipe.session.conversation import Conversation

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")

_ECHOES = (Server.ITEM_ADDED, Server.ITEM_DONE, Server.ITEM_CREATED)


class Retelling:
    """What one upstream was told so, and has yet to echo."""

    def __init__(self, session: "Session", conversation: Conversation) -> None:
        self._session = session
        self._conversation = conversation
        self._expected: set[tuple[str, str]] = set()
        self._retold: dict[str, str] = {}

    def begin(self) -> None:
        """Another upstream is told everything."""
        self._expected.clear()
        self._retold.clear()

    def create(self, item: Json, previous: str | None) -> bytes:
        """What tells it *item*, behind the one of the id *previous*, or behind all others."""
        event_id = self._session.veil.own_id()
        self._retold[event_id] = item["id"]
        entry = self._conversation.get(item["id"])
        # Who has seen that an item of its own was added, and not that it was done, is to see that after all.
        missing = entry is not None and not entry.is_done and not items.is_output(item)
        self._expected |= {(k, item["id"]) for k in _ECHOES if not (missing and k == Server.ITEM_DONE)}
        return Event(items.item_create(item, event_id, previous)).payload

    def truncate(self, event: Event) -> list[bytes] | None:
        """A client cuts what this upstream knows as text: what to send instead, None if it is no such
        item."""
        item_id = events.item_id_of(event.data) or ""
        entry = self._conversation.get(item_id)
        if entry is None or not entry.is_text_now:
            return None
        self._conversation.truncate(item_id, *items.truncation_of(event.data))
        told = items.replayable(entry.item)
        if told is None:
            return []
        before = self._conversation.before(item_id) or items.ROOT
        delete_id = self._session.veil.own_id()
        self._expected.add((Server.ITEM_DELETED, item_id))
        create = self.create({**told, "id": item_id}, before)
        return [Event(items.item_delete(item_id, delete_id)).payload, create]

    def is_echo(self, kind: str, item_id: str) -> bool:
        """Whether a server event of this type about this item answers what was told; each does once."""
        if (kind, item_id) not in self._expected:
            return False
        self._expected.discard((kind, item_id))
        return True

    def refused(self, event_id: str | None) -> bool:
        """An error names this event. Returns whether it told an item, which then is no part of the
        conversation any more."""
        item_id = self._retold.pop(event_id or "", None)
        if item_id is None:
            return False
        log.warning("session %s: the new upstream did not take an item of the conversation", self._session.id)
        self._conversation.delete(item_id)
        return True
