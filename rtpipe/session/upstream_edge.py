"""The upstream edge: what goes out is stamped and composed, what comes in is metered and observed."""

import logging
from typing import TYPE_CHECKING

import msgspec
import trio

from rtpipe.api.errors import HookFailed, QueueFull, Refused
from rtpipe.api.event import CLIENT, HOST, UPSTREAM_ORIGIN, Event, Json
from rtpipe.api.facts import ResponseEnded, TurnStarted
from rtpipe.api.verdicts import Close
from rtpipe.chain.walk import PLUGIN_FAILED
from rtpipe.protocol import events
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Server
from rtpipe.protocol.reading import Unreadable, decode, peek_server_type
from rtpipe.protocol.usage import read_usage
from rtpipe.session.configuration import Draft, Outgoing
from rtpipe.session.turns import TurnGate

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")

_OBSERVED = frozenset(
    {
        Server.ERROR,
        Server.SESSION_CREATED,
        Server.SESSION_UPDATED,
        Server.RESPONSE_CREATED,
        Server.RESPONSE_DONE,
        Server.ITEM_ADDED,
        Server.ITEM_CREATED,
        Server.OUTPUT_ITEM_ADDED,
        Server.OUTPUT_ITEM_DONE,
        Server.AUDIO_COMMITTED,
        Server.SPEECH_STARTED,
        Server.SPEECH_STOPPED,
        Server.TIMEOUT_TRIGGERED,
    }
)


class UpstreamEdge:
    """Between the chain and the upstream leg."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.configuration = session.configuration
        self.turns = TurnGate(session.configuration, self.reconfigure)
        self._created = False
        self._creates_of_client = 0
        self._responses: dict[str, tuple[float, str]] = {}
        self._unreadable = 0

    # --- towards the upstream -------------------------------------------------------------------------------

    async def deliver(self, event: Event) -> str:
        """Hand an event to the upstream; returns its fate. Waits while the upstream leg is being replaced."""
        if event.type == Client.SESSION_UPDATE:
            return await self._update(event)
        if event.type == Client.RESPONSE_CREATE and event.origin == CLIENT:
            self._creates_of_client += 1
        elif event.type == Client.ITEM_TRUNCATE:
            self._session.meter.stop_playout()
        if event.origin != CLIENT:
            self._session.veil.leaving(event)
        return await self._send(event.type, event.payload)

    async def _send(self, kind: str, payload: bytes) -> str:
        await self._session.upstream.attached()
        self._session.meter.passed(UPSTREAM, kind, payload)
        return "delivered" if await self._session.upstream.send(payload) else "lost"

    async def _update(self, event: Event) -> str:
        """A ``session.update``, the client's or a stage's, goes out composed."""
        data = events.without_model(event.data)
        update = events.update_of(data)
        if update is None:
            # Not an object: for the upstream to refuse in its own words.
            return await self._send(event.type, event.payload)
        return await self._compose(update, event, data)

    async def _compose(self, update: Json, event: Event, data: Json) -> str:
        draft = await self.fold(sc.merge(self.configuration.asked, update))
        outgoing, host_paths = self.configuration.compose(update, draft)
        event_id = events.event_id_of(data) or ""
        payload = event.payload
        if not outgoing.untouched or data is not event.data:
            # An id is needed to tell whose field was refused, should it be refused.
            event_id = event_id or self._session.veil.lend_id()
            payload = Event(events.session_update(outgoing.session or update, event_id)).payload
        self.configuration.sent(event_id, update, host_paths, draft)
        return await self._send(event.type, payload)

    def reconfigure(self) -> None:
        """Compose again as soon as the lane is free, and tell the upstream if something changed."""
        # Before there is an upstream nothing needs to be said: what it is told first is composed then.
        if self._session.upstream.connection is not None:
            self._session.lane(UPSTREAM).do(self._reconfigure_now)

    async def _reconfigure_now(self) -> None:
        outgoing, payload = await self.compose_own()
        if outgoing.session is not None:
            await self._send(Client.SESSION_UPDATE, payload)

    async def compose_own(self) -> tuple[Outgoing, bytes]:
        """An update of the host's own that brings the upstream to what is asked and configured."""
        draft = await self.fold(self.configuration.asked)
        outgoing, host_paths = self.configuration.compose(None, draft)
        if outgoing.session is None:
            return outgoing, b""
        event_id = self._session.veil.own_id()
        self.configuration.sent(event_id, None, host_paths or frozenset(sc.changed_paths({}, draft)), draft)
        return outgoing, Event(events.session_update(outgoing.session, event_id)).payload

    async def fold(self, asked: Json) -> Json:
        """What the stages, in chain order, and the turn gate make of what the client asked."""
        draft = Draft(asked)
        for call in self._session.hook_calls("configure"):
            before = draft.config
            try:
                await self._session.guard.call(call, self._session.view(call.stage), draft)
            except (HookFailed, Refused):
                draft.config = before
                if call.on_error == "close":
                    self._session.act_on_close(
                        Close(PLUGIN_FAILED, f"plugin {call.stage} failed"), call.stage
                    )
        return self.turns.contribute(draft.config)

    # --- from the upstream ----------------------------------------------------------------------------------

    async def frame(self, payload: bytes) -> None:
        """One payload from the upstream: counted, observed, and sent on its walk."""
        kind = peek_server_type(payload)
        self._session.meter.passed(DOWNSTREAM, kind, payload)
        if kind in _OBSERVED or (kind and self._session.chain.links(DOWNSTREAM, kind)):
            try:
                data = decode(payload)
            except Unreadable:
                # Nobody here can read it; whether the client can is for the client to say.
                self._unreadable += 1
                if self._unreadable == 1:
                    log.warning("session %s: the upstream sent JSON that cannot be read", self._session.id)
                kind = ""
            else:
                if kind in _OBSERVED:
                    self._observe(kind, data)
        await self._session.lane(DOWNSTREAM).enter(Event.received(payload, kind, UPSTREAM_ORIGIN))

    def _observe(self, kind: str, data: Json) -> None:
        self._session.veil.observe(kind, data)
        match kind:
            case Server.SESSION_CREATED:
                self._session_created(data)
            case Server.SESSION_UPDATED:
                self._session_updated(data)
            case Server.ERROR:
                self._error(data)
            case Server.SPEECH_STARTED:
                self._session.meter.stop_playout()
            case Server.SPEECH_STOPPED | Server.TIMEOUT_TRIGGERED:
                self.turns.heard(events.item_id_of(data))
            case Server.AUDIO_COMMITTED:
                self._turn_committed(events.item_id_of(data))
            case Server.RESPONSE_CREATED:
                self._response_created(data)
            case Server.RESPONSE_DONE:
                self._response_done(data)

    def _session_created(self, data: Json) -> None:
        session = events.session_of(data) or {}
        self.configuration.base = session
        if not self.configuration.effective:
            self.configuration.effective = session
        if self._created:
            self._session.veil.swallow(data)
        self._created = True

    def _session_updated(self, data: Json) -> None:
        session = events.session_of(data) or {}
        if not self.configuration.confirmed(session):
            self._session.veil.swallow(data)
        self._session.meter.audio_bytes_per_second = sc.audio_bytes_per_second(session)

    def _error(self, data: Json) -> None:
        _, event_id, param = events.error_of(data)
        refused = self.configuration.rejected(event_id, param)
        if refused is None:
            return
        if refused.update is None or not refused.host_paths:
            self.reconfigure()
            return
        # The fault was the host's: the client's own wish is sent again without it.
        self._session.veil.swallow(data)
        update = refused.update

        async def again() -> None:
            event = Event(events.session_update(update, refused.event_id), origin=CLIENT)
            await self._compose(update, event, event.data)

        self._session.lane(UPSTREAM).do(again)

    def _turn_committed(self, item_id: str | None) -> None:
        by_voice = self.turns.committed(item_id)
        self._session.record(TurnStarted(item_id=item_id or "", by="vad" if by_voice else "client"))
        if by_voice and self.turns.must_ask:
            create = Event(events.response_create(self._session.veil.own_id()), origin=HOST)
            try:
                self._session.send(UPSTREAM, create, 0)
            except QueueFull:
                log.warning("session %s: a turn stays unanswered, too much is queued", self._session.id)

    def _response_created(self, data: Json) -> None:
        response_id = events.response_id_of(data) or ""
        origin = self._session.veil.origin_of(response_id)
        if origin is None and self._creates_of_client:
            self._creates_of_client -= 1
            origin = CLIENT
        self._responses[response_id] = (trio.current_time(), origin or UPSTREAM_ORIGIN)

    def _response_done(self, data: Json) -> None:
        response_id = events.response_id_of(data) or ""
        started, origin = self._responses.pop(response_id, (trio.current_time(), UPSTREAM_ORIGIN))
        usage = read_usage(data)
        self._session.record(
            ResponseEnded(
                response_id=response_id,
                status=str((events.response_of(data) or {}).get("status")),
                origin=origin,
                duration_s=trio.current_time() - started,
                usage=msgspec.structs.asdict(usage) if usage else {},
            )
        )
