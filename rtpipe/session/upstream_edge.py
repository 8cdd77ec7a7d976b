"""The upstream edge: what goes out is stamped and composed, what comes in is metered and observed."""

import logging
from typing import TYPE_CHECKING

import trio

from rtpipe.api.event import CLIENT, HOST, UPSTREAM_ORIGIN, Event
from rtpipe.protocol import events, items
from rtpipe.protocol.catalogue import DOWNSTREAM, SERVER_TYPES, UPSTREAM, Client, Server
from rtpipe.protocol.reading import Unreadable, decode, peek_server_type
from rtpipe.session.carried import FOLLOWED, Carried
from rtpipe.session.closing import NORMAL
from rtpipe.session.composing import Composing
from rtpipe.session.learning import OBSERVED, Learning
from rtpipe.session.quiet import Quiet
from rtpipe.session.responses import Responses
from rtpipe.transport.connection import Connection

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")

_OF_THE_BILL = frozenset(
    {Server.ERROR, Server.RESPONSE_CREATED, Server.RESPONSE_DONE, Server.TRANSCRIPTION_COMPLETED}
)


class UpstreamEdge:
    """Between the chain and the upstream leg."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.configuration = session.configuration
        self.composing = Composing(session)
        self.turns = self.composing.turns
        self.carried = Carried(session)
        self.retries = False
        """Whether an answer that was cut is asked for again."""
        self.responses = Responses(trio.current_time)
        self.quiet = Quiet(session, self.responses, self.carried)
        self.learning = Learning(session, self.composing, self.carried, self.responses, self.quiet)
        self._served: Connection | None = None
        """What has been told everything, and takes events as they come."""
        links = session.chain.links
        self._unwanted = {kind for kind in SERVER_TYPES - OBSERVED if not links(DOWNSTREAM, kind)}
        self._unreadable = 0

    # --- towards the upstream -------------------------------------------------------------------------------

    async def deliver(self, event: Event) -> str:
        """Hand an event to the upstream; returns its fate. While there is none it is kept for the next."""
        fate = await self._forward(event) if self.is_served else self.carried.keep(event)
        if event.type != Client.AUDIO_APPEND:
            self._session.changed()
        return fate

    @property
    def is_served(self) -> bool:
        """Whether there is an upstream that knows everything that came before."""
        return self._served is not None and self._served is self._session.upstream.connection

    async def _forward(self, event: Event) -> str:
        if event.type == Client.SESSION_UPDATE:
            return await self.composing.update(event)
        if (
            event.type == Client.ITEM_TRUNCATE
            and (told := self.carried.retelling.truncate(event)) is not None
        ):
            return await self._truncate(event, told)
        if event.type == Client.RESPONSE_CREATE and self.turns.is_void(event):
            message, event_id = "The turn to be answered comes once more.", events.event_id_of(event.data)
            self._session.client_edge.tell("turn_comes_again", message, event_id, by_upstream=True)
            return "refused"
        if event.type == Client.RESPONSE_CREATE and event.origin == CLIENT:
            self.quiet.asked()
        elif event.type == Client.ITEM_TRUNCATE:
            self._session.meter.stop_playout()
        elif event.type == Client.RESPONSE_CANCEL:
            self.responses.cancelled(event.data, event.origin)
        elif event.type == Client.ITEM_CREATE and event.origin == CLIENT and self.responses.await_outputs:
            self._output(event)
        if event.origin != CLIENT:
            self._session.veil.leaving(event)
        self.carried.sent(event)
        return await self.send_now(event.type, event.payload)

    async def _truncate(self, event: Event, told: list[bytes]) -> str:
        """What was speech is text for this upstream: it is told the shorter text, the client the usual."""
        self._session.meter.stop_playout()
        for payload in told:
            await self.send_now(Client.ITEM_CREATE, payload)
        index, end_ms = items.truncation_of(event.data)
        item_id = events.item_id_of(event.data) or ""
        echo = items.item_truncated(item_id, index, end_ms, self._session.veil.own_id())
        self._session.send(DOWNSTREAM, Event(echo, origin=HOST), 0)
        return "answered"

    def passable(self) -> bool:
        """Whether client events that neither a stage nor the host wants may pass without a walk, now."""
        session = self._session
        return session.lane(UPSTREAM).is_free and self.is_served and not session.taps

    def _output(self, event: Event) -> None:
        if (called := self.responses.output(event.data)) is not None:
            self._session.record(called)

    async def send_now(self, kind: str, payload: bytes) -> str:
        """Send this, whatever waits; returns its fate."""
        self._session.meter.passed(UPSTREAM, kind, payload)
        return "delivered" if await self._session.upstream.send(payload) else "lost"

    async def attach(self, connection: Connection, loss: str = "") -> None:
        """Tell *connection* the composed configuration and have it serve the leg; then tell it what the last
        one knew, but for *loss*. The one it replaces is closed."""
        replaced = self._session.upstream.was_attached
        async with self.composing.lock:
            # From here on the old one has no say in what the upstream knows.
            self._served = None
            if (before := self._session.upstream.detach()) is not None:
                self._session.start(before.close, NORMAL, "replaced")
            waits_for = None
            if replaced:
                waits_for = self.configuration.upstream_replaced()
                self._session.veil.upstream_replaced()
                self.responses.upstream_replaced()
                self.quiet.upstream_replaced()
                # Now: what the next one says must not be taken for something of the last one's.
                await self._session.stages.tell("upstream_replaced", loss)
            if (payload := await self.composing.compose_own(waits_for)) is not None:
                await connection.send(payload)
                self._session.meter.passed(UPSTREAM, Client.SESSION_UPDATE, payload)
            # A session that ends closes what is attached, once: not behind its back.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._session.attach(self._session.upstream, connection)
        await self._catch_up(connection)
        if self.composing.is_stale:
            self.composing.reconfigure()

    async def _catch_up(self, connection: Connection) -> None:
        """Tell *connection* the conversation, and then what waits for it; until it is lost too."""
        leg, carried = self._session.upstream, self.carried
        owes_turn = carried.owes_turn
        for payload in carried.retell():
            if leg.connection is not connection:
                return
            await self.send_now(Client.ITEM_CREATE, payload)
        while leg.connection is connection:
            if (event := carried.next_waiting()) is None:
                self._served = connection
                if owes_turn:
                    self.learning.ask_for_turn()
                return
            await self._forward(event)

    def cut(self) -> None:
        """The upstream has gone or goes: what it was answering ends, for every stage and the client."""
        self._served = None
        if self.carried.tells_turn_again:
            self.turns.comes_again()
        ends, again = self.carried.cut(retry=self.retries)
        for data in ends:
            event = Event(data, origin=HOST)
            self.learning.observe(event.type, data)
            self._session.send(DOWNSTREAM, event, 0)
        for create in again:
            self._session.send(UPSTREAM, create, 0)

    # --- from the upstream ----------------------------------------------------------------------------------

    async def frames(self, payloads: list[bytes]) -> None:
        """What came with one read: counted; runs of what nobody wants pass with one write."""
        session, client_edge = self._session, self._session.client_edge
        lane = session.lane(DOWNSTREAM)
        passed, unwanted, responses = session.meter.passed, self._unwanted, self.responses
        now = trio.current_time()
        run: list[bytes] = []
        # Nothing else happens until the next await, so what holds now holds for a whole run.
        passable = client_edge.passable()
        for payload in payloads:
            kind = peek_server_type(payload)
            passed(DOWNSTREAM, kind, payload, now)
            if session.ending is not None:
                await self._after_the_end(kind, payload)
                continue
            if responses.silent and kind == Server.AUDIO_DELTA:
                responses.audio(payload)
            if passable and kind in unwanted and session.veil.passes(kind, payload):
                run.append(payload)
                continue
            if run:
                await lane.pass_on(run, session.client)
                run = []
            await self._frame(kind, payload)
            if not session.upstream.listening:
                return
            passable = client_edge.passable()
        if run:
            await lane.pass_on(run, session.client)

    async def _after_the_end(self, kind: str, payload: bytes) -> None:
        """The session is over but for its bill: stages hear what is part of it, the client nothing."""
        if kind not in _OF_THE_BILL:
            return
        try:
            data = decode(payload)
        except Unreadable:
            return
        if events.event_id_of(data) is not None:  # by which it is kept from the client
            self._session.veil.swallow(data)
            await self._frame(kind, payload)

    async def _frame(self, kind: str, payload: bytes) -> None:
        """One payload from the upstream: observed, and sent on its walk."""
        if kind in OBSERVED or (kind and self._session.chain.links(DOWNSTREAM, kind)):
            try:
                data = decode(payload)
            except Unreadable:
                # Nobody here can read it; whether the client can is for the client to say.
                self._unreadable += 1
                if self._unreadable == 1:
                    log.warning("session %s: the upstream sent JSON that cannot be read", self._session.id)
                kind = ""
            else:
                if kind in FOLLOWED and self.carried.observe(kind, data):
                    return
                if kind in OBSERVED:
                    self.learning.observe(kind, data)
                    self._session.changed()
        await self._session.lane(DOWNSTREAM).enter(Event.received(payload, kind, UPSTREAM_ORIGIN))
        if self.learning.unasked_turn:
            self.learning.ask_for_turn()
