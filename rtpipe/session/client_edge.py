"""The client edge: what comes in from a client is judged, what goes out to it is veiled."""

from typing import TYPE_CHECKING

import trio

from rtpipe.api.errors import QueueFull
from rtpipe.api.event import CLIENT, HOST, Event, Json
from rtpipe.protocol import events, items
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Server
from rtpipe.protocol.permissions import forbidden
from rtpipe.protocol.reading import Unreadable, decode, read_client
from rtpipe.session.closing import Ending

if TYPE_CHECKING:
    from rtpipe.session.session import Session

# The host reads these itself, so what it reads must be what the upstream will read.
_JUDGED = frozenset(
    {
        Client.SESSION_UPDATE,
        Client.ITEM_CREATE,
        Client.ITEM_DELETE,
        Client.ITEM_RETRIEVE,
        Client.ITEM_TRUNCATE,
        Client.RESPONSE_CANCEL,
        Client.RESPONSE_CREATE,
    }
)
_SESSION_EVENTS = frozenset({Server.SESSION_CREATED, Server.SESSION_UPDATED})
POLICY_VIOLATION = 1008
LARGE_BYTES = 16 * 1024
"""To judge a larger event may take milliseconds: of all sessions' one comes at a time."""
MAX_SETTINGS = 500
"""In one update. Ten times what the protocol knows; each is compared with all that came before."""


class ClientEdge:
    """Between the client leg and the chain."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        links = session.chain.links
        self._unwanted = {kind for kind in (Client.AUDIO_APPEND,) if not links(UPSTREAM, kind)}
        self.refused = 0
        """Client frames answered with an error instead of walking."""

    async def frames(self, payloads: list[bytes]) -> None:
        """What came with one read: runs of what nobody wants pass with one write."""
        session, upstream_edge = self._session, self._session.upstream_edge
        now = trio.current_time()
        run: list[bytes] = []
        # Nothing else happens until the next await, so what holds now holds for a whole run.
        passable = upstream_edge.passable()
        for payload in payloads:
            if len(payload) > LARGE_BYTES:
                await self._pass_on(run)
                run = []
                await session.turn()
                if not session.client.listening:
                    return
                passable = upstream_edge.passable()
            kind = self._readable(payload)
            if passable and kind in self._unwanted:
                session.meter.passed(UPSTREAM, kind, payload, now)
                run.append(payload)
                continue
            await self._pass_on(run)
            run = []
            if kind is not None:
                await self._walk(kind, payload)
            # To judge one may take milliseconds: everybody else comes before the next.
            await trio.lowlevel.checkpoint()
            if not session.client.listening:
                return
            passable = upstream_edge.passable()
        await self._pass_on(run)

    async def _pass_on(self, run: list[bytes]) -> None:
        if run:
            self._session.upstream_edge.carried.audio.append(run)
            await self._session.lane(UPSTREAM).pass_on(run, self._session.upstream)

    def _readable(self, payload: bytes) -> str | None:
        """The event's type; None when the client has been told that it cannot be forwarded."""
        try:
            return self._judge(payload)
        except Unreadable as exc:
            self.refused += 1
            self.tell(exc.code, exc.message, exc.event_id)
            return None

    async def _walk(self, kind: str, payload: bytes) -> None:
        event = Event.received(payload, kind, CLIENT)
        for tap in self._session.taps:
            tap.event(self._session.id, UPSTREAM, event)
        if kind == Client.ITEM_CREATE and self._session.parking.was_resumed and self._echo(event):
            return
        await self._session.lane(UPSTREAM).enter(event)

    def _echo(self, event: Event) -> bool:
        """A client that came back may tell the conversation again: what is there already is answered as it
        was, and not told to the model twice; what the model is still to answer, it answers. Returns whether
        it was that."""
        session, item_id = self._session, events.item_id_of(event.data)
        carried = session.upstream_edge.carried
        if item_id is None or item_id in session.veil.hidden_items:
            return False
        entry, awaited = carried.log.get(item_id), carried.awaited(item_id)
        if entry is None or awaited is not None:
            return awaited == Client.ITEM_CREATE
        previous = carried.log.before(item_id)
        for kind in (Server.ITEM_ADDED, Server.ITEM_DONE):
            echo = items.item_echo(kind, entry.item, previous, session.veil.own_id())
            session.lane(DOWNSTREAM).inject(Event(echo, origin=HOST), len(session.chain))
        return True

    def _judge(self, payload: bytes) -> str:
        """The event's type. Raises ``Unreadable`` for what must not be forwarded."""
        frame = read_client(payload)
        read_by_host = frame.type in _JUDGED
        if frame.duplicate is not None and (read_by_host or self._session.chain.links(UPSTREAM, frame.type)):
            message = f"The key {frame.duplicate} stands twice in this event: send each key once."
            raise Unreadable("duplicate_key", message, frame.event_id)
        if frame.type == Client.SESSION_UPDATE:
            data = decode(payload)
            self._check_size(data)
            self._check_model(data)
            self._check_settings(data, events.update_of(data))
        elif frame.type == Client.RESPONSE_CREATE:
            data = decode(payload)
            self._check_hidden(frame.type, data)
            self._check_settings(data, events.response_of(data))
        elif read_by_host and self._session.veil.hidden_items:
            self._check_hidden(frame.type, decode(payload))
        return frame.type

    def _check_size(self, data: Json) -> None:
        if len(sc.changed_paths({}, events.update_of(data) or {})) > MAX_SETTINGS:
            message = f"An update may have {MAX_SETTINGS} settings."
            raise Unreadable("too_many_settings", message, events.event_id_of(data))

    def _check_settings(self, data: Json, settings: Json | None) -> None:
        who = self._session.principal
        found = forbidden(settings or {}, tools=who.tools, voices=who.voices, modalities=who.modalities)
        if found is not None:
            raise Unreadable(*found, events.event_id_of(data))

    def _check_model(self, data: Json) -> None:
        model, allowed = events.model_of_update(data), self._session.principal.models
        if model is not None and allowed is not None and model not in allowed:
            raise Unreadable(
                "model_not_allowed",
                f"This key may not use the model {model!a}.",
                events.event_id_of(data),
            )

    def _check_hidden(self, kind: str, data: Json) -> None:
        if self._session.veil.refuses(kind, data):
            message = "The conversation has no such item."
            raise Unreadable("item_not_found", message, events.event_id_of(data))

    def tell(self, code: str, message: str, event_id: str | None, *, by_upstream: bool = False) -> None:
        """Answer the client with an ``error`` event, in order with everything else it is sent.

        *by_upstream*: where the upstream would say it, so that every stage hears what became of its own.
        """
        error = Event(
            events.error_event(code, message, event_id=event_id, own_id=self._session.veil.own_id()),
            origin=HOST,
        )
        try:
            self._session.lane(DOWNSTREAM).inject(error, 0 if by_upstream else len(self._session.chain))
        except QueueFull:
            self._session.end(Ending(POLICY_VIOLATION, "too many errors are waiting to be read", HOST))

    def passable(self) -> bool:
        """Whether server events that neither a stage nor the host wants may pass without a walk, now."""
        session = self._session
        if session.taps or session.parking.hides:
            return False
        return session.lane(DOWNSTREAM).is_free and session.client.connection is not None

    async def deliver(self, event: Event) -> str:
        """Hand an event to the client; returns its fate. Waits for the first client: the upstream greets as
        soon as it is dialled, and the client is answered only then."""
        if not self._session.client.was_attached:
            await self._session.client.attached()
        try:
            seen = self._as_shown(event)
        except (ValueError, TypeError, RecursionError):
            # It cannot be read, or not written again. Whether the client can read it is for the client to
            # say, unless there is something in it that is hidden.
            seen = None if self._session.veil.may_concern(event.payload) else event
        if seen is None or self._session.parking.hides_event(seen):
            return "hidden"
        for tap in self._session.taps:
            tap.event(self._session.id, DOWNSTREAM, seen)
        if await self._session.client.send(seen.payload):
            return "delivered"
        return self._session.client.missed(seen.payload)

    def _as_shown(self, event: Event) -> Event | None:
        seen = self._session.veil.shown(event)
        if seen is None:
            return None
        if seen.type in _SESSION_EVENTS and seen.origin != CLIENT:
            return self._as_asked(seen)
        return seen

    def _as_asked(self, event: Event) -> Event:
        """The client sees the configuration it asked for, not what stages made of it."""
        session = events.session_of(event.data)
        if session is None:
            return event
        shown = self._session.configuration.shown(session)
        return event if shown is session else event.replace(events.with_session(event.data, shown))
