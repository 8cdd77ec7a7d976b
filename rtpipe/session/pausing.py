"""Answers that nobody is there to hear: cancelled while the client is away, asked for again when it is back.

The protocol knows no pause. Were the upstream merely not read, it would go on speaking and billing, and its
pings would lie unanswered behind what it has said.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rtpipe.api.event import HOST, Event, Json
from rtpipe.protocol import events, items
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM

if TYPE_CHECKING:
    from rtpipe.session.session import Session

_MAX_AGAIN: Final = 20
"""Of what asks for answers again, the oldest is forgotten first."""


class Pausing:
    """Does nothing unless the operator wants it."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.is_wanted = False
        self._is_paused = False
        self._stopped: set[str] = set()
        self._again: deque[Event] = deque(maxlen=_MAX_AGAIN)

    def pause(self) -> None:
        """The client is gone."""
        if not self.is_wanted:
            return
        self._is_paused = True
        for response_id in self._session.upstream_edge.responses.running:
            self.began(response_id)

    def began(self, response_id: str) -> None:
        """A response runs."""
        if self._is_paused:
            self._stopped.add(response_id)
            cancel = events.response_cancel(self._session.veil.own_id(), response_id)
            self._session.send(UPSTREAM, Event(cancel, origin=HOST), 0)

    def ended(self, data: Json, again: Iterable[Event]) -> None:
        """A response has ended, which *again* would ask for once more. What there is of it is taken out of
        the conversation, unless an item of it was complete: then it stays as it is."""
        response_id = events.response_id_of(data) or ""
        if response_id not in self._stopped:
            return
        self._stopped.discard(response_id)
        begun = items.cut_short(data)
        if begun is None or not events.was_cancelled(data):
            return
        session = self._session
        for item_id in begun:
            delete = items.item_delete(item_id, session.veil.own_id())
            session.send(UPSTREAM, Event(delete, origin=HOST), 0)
            deleted = items.item_deleted(item_id, session.veil.own_id())
            session.send(DOWNSTREAM, Event(deleted, origin=HOST), 0)
        self._again.extend(again)
        if not self._is_paused:
            self.go_on()

    def go_on(self) -> None:
        """The client is back."""
        self._is_paused = False
        while self._again:
            self._session.send(UPSTREAM, self._again.popleft(), 0)
