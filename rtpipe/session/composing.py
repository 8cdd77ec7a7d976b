"""Composing: what the client asks, the stages want and the turn gate adds becomes one ``session.update``."""

import logging
from typing import TYPE_CHECKING
from weakref import proxy

import trio

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import CLIENT, HOST, Event, Json
from rtpipe.protocol import events
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import UPSTREAM, Client
from rtpipe.protocol.permissions import permitted_defaults
from rtpipe.session.closing import INTERNAL_ERROR, Ending
from rtpipe.session.configuration import Draft, Rejected
from rtpipe.session.turns import TurnGate

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")

_UPDATES_IN_FLIGHT = 100


class Composing:
    """Writes every ``session.update`` that the upstream gets, and answers for those it refuses."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.configuration = session.configuration
        weak: Composing = proxy(self)
        self.turns = TurnGate(session.configuration, lambda: weak.reconfigure())
        self.lock = trio.Lock()
        """Held while an update is composed and sent: the upstream answers updates in the order they came."""
        self.is_stale = False
        """Whether something has changed since the last was composed."""
        self._queued = False

    async def update(self, event: Event) -> str:
        """A ``session.update``, the client's or a stage's, goes out composed."""
        data = events.without_model(event.data)
        update = events.update_of(data)
        if update is None:
            # Not an object: for the upstream to refuse in its own words.
            return await self._session.upstream_edge.send_now(event.type, event.payload)
        if self.configuration.in_flight >= _UPDATES_IN_FLIGHT:
            message = "Too many session updates are still unanswered; send this one again later."
            self._session.client_edge.tell("too_many_updates", message, events.event_id_of(data))
            return "refused"
        return await self._compose(update, event, data)

    async def _compose(self, update: Json, event: Event, data: Json) -> str:
        async with self.lock:
            if self._session.upstream.connection is None:
                return self._session.upstream_edge.carried.keep(event)
            draft = await self.fold(sc.merge(self.configuration.asked, update))
            outgoing = self.configuration.compose(update, draft)
            event_id = events.event_id_of(data) or ""
            payload = event.payload
            if not outgoing.untouched or data is not event.data:
                # An id is needed to tell whose field was refused, should it be refused.
                event_id = event_id or self._session.veil.lend_id()
                payload = Event(events.session_update(outgoing.session or update, event_id)).payload
            self.configuration.sent(event_id, update, outgoing)
            return await self._session.upstream_edge.send_now(event.type, payload)

    def reconfigure(self) -> None:
        """Compose again as soon as the lane is free, and tell the upstream if something changed."""
        self.is_stale = True
        # While there is no upstream nothing needs to be said: what the next is told first is composed then.
        if self._session.upstream.connection is not None and not self._queued:
            self._queued = True
            self._session.lane(UPSTREAM).do(self._reconfigure_now)

    async def _reconfigure_now(self) -> None:
        self._queued = False
        async with self.lock:
            if self._session.upstream.connection is None:
                return  # what the next is told first is composed then
            if (payload := await self.compose_own()) is not None:
                await self._session.upstream_edge.send_now(Client.SESSION_UPDATE, payload)

    async def compose_own(self, waits_for: str | None = None) -> bytes | None:
        """An update of the host's own that brings the upstream to what is asked and configured; None when
        it is there already. To be sent at once, before the lock is let go.

        *waits_for*: the id of an update that the client still wants to see answered; this is the answer.
        """
        self.is_stale = False
        draft = await self.fold(self.configuration.asked)
        outgoing = self.configuration.compose(None, draft)
        if outgoing.session is None and waits_for is None:
            return None
        event_id = waits_for or self._session.veil.own_id()
        self.configuration.sent(event_id, None if waits_for is None else {}, outgoing)
        return Event(events.session_update(outgoing.session or {}, event_id)).payload

    async def fold(self, asked: Json) -> Json:
        """What the stages, in chain order, and the turn gate make of what the client asked."""
        draft = Draft({"type": self.configuration.session_type, **asked})
        if self.configuration.session_type == "realtime":
            who = self._session.principal
            settings = permitted_defaults(draft.config, voices=who.voices, modalities=who.modalities)
            for path, value in settings.items():
                draft.set(path, value)
                draft.require(path)
        for call in self._session.stages.calls("configure"):
            before = draft.config
            try:
                await self._session.guard.call(call, self._session.view(call.stage), draft)
            except (HookFailed, Refused) as exc:
                draft.config = before
                if isinstance(exc, Refused):
                    self._session.guard.refused(call)
                self._session.stages.failed(call)
        self.configuration.required = frozenset(draft.required)
        return self.turns.contribute(draft.config)

    def answer_refusal(self, data: Json) -> None:
        """The upstream has sent an error: perhaps it does not take an update."""
        _, event_id, param = events.error_of(data)
        refused = self.configuration.rejected(event_id, param)
        if refused is None:
            return
        if refused.unmet:
            self._session.veil.swallow(data)  # it may quote what the client is not to see
            self._without_required(refused, param)
            return
        if refused.again is None:
            if not refused.by_client:
                self._session.veil.swallow(data)
            self.reconfigure()
            return
        # The fault was the host's: the client's own wish is sent again without it.
        self._session.veil.swallow(data)
        update = refused.again

        async def again() -> None:
            event = Event(events.session_update(update, refused.event_id), origin=CLIENT)
            await self._compose(update, event, event.data)

        self._session.lane(UPSTREAM).do(again)

    def _without_required(self, refused: Rejected, param: str | None) -> None:
        """The upstream does not take what a stage requires: no update without it, and no session."""
        log.error("session %s: the upstream refuses %s, which is required", self._session.id, ascii(param))
        if refused.by_client:
            message = "The model refuses this update together with what the gateway sets."
            event_id = None if self._session.veil.is_lent(refused.event_id) else refused.event_id
            self._session.client_edge.tell("update_refused", message, event_id)
            return
        message = "The model does not accept what the gateway sets for this session."
        error = ("session_refused", message)
        self._session.end(Ending(INTERNAL_ERROR, "the model refused the configuration", HOST, error))
