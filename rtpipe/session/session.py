"""A session: one conversation, its configuration, meters and plugin states, and the two legs it outlives."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol
from weakref import proxy

import msgspec
import trio

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import HOST, UPSTREAM_ORIGIN, Event, UnreadableEvent
from rtpipe.api.facts import Fact, LegChanged, SessionOpened, ToolCalled
from rtpipe.api.principal import Principal
from rtpipe.api.request import DialRequest
from rtpipe.api.verdicts import Close, Verdict
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard, HookCall
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Direction
from rtpipe.session import farewell, outcomes
from rtpipe.session.client_edge import ClientEdge
from rtpipe.session.closing import GOING_AWAY, INTERNAL_ERROR, NORMAL, Ending
from rtpipe.session.configuration import Configuration
from rtpipe.session.holds import kind_of
from rtpipe.session.lane import Lane
from rtpipe.session.legs import Leg
from rtpipe.session.limits import SessionLimits
from rtpipe.session.meters import Meter
from rtpipe.session.parking import Parking
from rtpipe.session.replacement import Replacement
from rtpipe.session.stages import Stages
from rtpipe.session.sums import Sums
from rtpipe.session.tools import SESSION_END, HostTools
from rtpipe.session.upstream_edge import UpstreamEdge
from rtpipe.session.veil import Veil
from rtpipe.session.view import StageView, with_session
from rtpipe.session.watch import Watchers
from rtpipe.transport.connection import Connection

log = logging.getLogger("rtpipe.session")

Observer = Callable[[Fact], None]
Dialer = Callable[[DialRequest], Awaitable[Connection]]


class Tap(Protocol):
    """Somebody who is shown what passes the client edge, at once and without a say in it."""

    def event(self, session: str, direction: Direction, event: Event) -> None: ...


class Session:
    """Owns the conversation; legs attach and detach. Lives inside a nursery of its owner's."""

    def __init__(
        self,
        session_id: str,
        principal: Principal,
        model: str,
        chain: Chain,
        guard: Guard,
        nursery: trio.Nursery,
        *,
        limits: SessionLimits | None = None,
        session_type: str = "realtime",
        observer: Observer = lambda _: None,
        taps: Collection[Tap] = (),
        host_tools: HostTools | None = None,
        traceparent: str = "",
        redact: Callable[[Fact], Fact] = lambda fact: fact,
        turn: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """*turn* waits before what takes milliseconds, lest many sessions do it at once."""
        self.id = session_id
        self.principal = principal
        self.model = model
        self.chain = chain
        self.guard = guard
        self.limits = limits or SessionLimits()
        self.ended = trio.Event()
        self.ending: Ending | None = None
        self.meter = Meter(trio.current_time)
        self.configuration = Configuration.begun(session_type, principal.session)
        self.veil = Veil()
        # Its parts do not keep it: what has ended is gone at once, and nobody has to look for it.
        weak: Session = proxy(self)
        self.client_edge = ClientEdge(weak)
        self.upstream_edge = UpstreamEdge(weak)
        self.turns = self.upstream_edge.turns
        self.parking = Parking(weak)
        self.client = Leg(self.client_edge.frames, self.parking.lost)
        self.replacement = Replacement(weak)
        self.upstream = Leg(self.upstream_edge.frames, self.replacement.lost)
        self.stages = Stages(weak)
        self.watchers = Watchers(guard, self.limits.watch_events)
        self.taps = taps
        self.host_tools = host_tools
        self.traceparent = traceparent
        self.sums = Sums()
        self._nursery = nursery
        self._observer = observer
        self._redact = redact
        self.turn = turn
        self.began_s = trio.current_time()
        self.kept: dict[str, msgspec.Raw] = {}  # JSON that stages keep, by their names
        self.changed: Callable[[], None] = lambda: None
        """Is called when there is something new that should last."""
        self._closed = False
        self._lanes: dict[Direction, Lane] = {
            direction: Lane(direction, chain, guard, weak, self.limits)
            for direction in (UPSTREAM, DOWNSTREAM)
        }

    # --- its life -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the stages' states and call their ``session_open``, in chain order.

        Raises ``Refused``; a stage that fails is left out of the session where its policy is ``pass``.
        """
        for task in (self.watchers.run, self._keep_holds_young):
            self.start(task)
        await self.stages.open(self)
        # Only now: no stage meets an event before its session_open has returned.
        for lane in self._lanes.values():
            self.start(lane.run)

    async def dial(self, request: DialRequest, dialer: Dialer) -> None:
        """Dial, and attach what answers. Raises what `connect` raises, and ``ConnectionLost``."""
        await self.attach_upstream(await self.connect(request, dialer))

    async def connect(self, request: DialRequest, dialer: Dialer) -> Connection:
        """Ask the ``upstream_dial`` hooks, and dial. Raises ``Refused``, and what *dialer* raises."""
        for call in self.stages.calls("upstream_dial"):
            try:
                await self.guard.call(call, self.view(call.stage), request)
            except HookFailed:
                if call.on_error != "pass":
                    raise Refused(503, "session_refused", "The gateway could not reach the model.") from None
        return await dialer(request)

    async def attach_upstream(self, connection: Connection, loss: str = "") -> None:
        """Have *connection* serve the upstream leg, told the composed configuration before anything else.

        *loss* says what could not be carried over from the one it replaces. Raises ``ConnectionLost`` when
        it breaks at once; then nothing serves the leg, and both connections are closed.
        """
        replaced = self.upstream.was_attached
        try:
            if replaced:
                self.upstream_edge.cut()
                with trio.move_on_after(self.limits.settle_s):
                    await self.lane(DOWNSTREAM).settle()
                self.upstream_edge.carried.take_audio()
                loss = ", ".join(part for part in (loss, self.upstream_edge.carried.loss()) if part)
            await self.upstream_edge.attach(connection, loss)
        except BaseException:
            # Nothing else would ever close it. (This finishes under cancellation.)
            await connection.close(GOING_AWAY, "")
            raise
        self.record(LegChanged(leg="upstream", change="replaced" if replaced else "attached", cause=loss))

    async def attach_client(self, connection: Connection) -> None:
        """Have *connection* serve the client leg; one it replaces is closed."""
        before = self.attach(self.client, connection)
        if before is not None:
            self.start(before.close, NORMAL, "replaced by another connection")
        self.record(LegChanged(leg="client", change="attached", cause=""))
        await self.stages.tell("client_attached")

    def opened(self, listener: str, upstream: str, address: str = "") -> None:
        """Record that the session is in service."""
        self.record(
            SessionOpened(
                principal=self.principal.id,
                model=self.model,
                listener=listener,
                upstream=upstream,
                address=address,
            )
        )

    async def answered(self) -> None:
        """Wait until what the client has asked for is answered and delivered."""
        await self.upstream_edge.quiet.come()
        await self.lane(DOWNSTREAM).settle()

    def end(self, ending: Ending) -> None:
        """The session is over; the first ending counts."""
        if self.ending is None:
            self.ending = ending
            # At once, not when the owner gets round to closing: nothing passes behind the event that closed.
            self.client.stop_listening()
            if ending.cause in (HOST, UPSTREAM_ORIGIN) or not self.upstream_edge.quiet.owes:
                self.upstream.stop_listening()
            self.ended.set()
        self.upstream_edge.quiet.look_again()

    async def close(self) -> None:
        """Deliver what is on its way, close the legs, call ``session_close``. Bounded, shielded."""
        if self._closed:
            return
        self._closed = True
        self.end(Ending(NORMAL, "", HOST))
        assert self.ending is not None
        with trio.CancelScope(shield=True):
            await farewell.part(self, self.ending)

    def stop_tasks(self) -> None:
        """End what `start` has started."""
        self._nursery.cancel_scope.cancel(reason=SESSION_END)

    def forget(self) -> None:
        """It is closed, and nobody asks it for anything more: let go of those who know it in turn."""
        self.stages.forget()
        self.replacement.redial = None
        self.changed = lambda: None

    async def _keep_holds_young(self) -> None:
        """Give up what is held for longer than the limit."""
        while True:
            await trio.sleep(self.limits.hold_age_s / 10)
            for lane in self._lanes.values():
                lane.expire(trio.current_time())

    def reconfigure(self) -> None:
        self.upstream_edge.composing.reconfigure()

    def limit(self, limits: Mapping[str, str | int | float]) -> None:
        """Have the principal live under these limits from now on, and tell the stages, before the end."""
        self.principal = msgspec.structs.replace(self.principal, limits=limits)
        self.start(self.stages.tell, "limits_changed")

    # --- for its parts and its stages' views ----------------------------------------------------------------

    def lane(self, direction: Direction) -> Lane:
        return self._lanes[direction]

    def view(self, stage: str) -> StageView:
        """What a stage's hooks get as ``session``."""
        return self.stages.view(stage)

    @property
    def absent(self) -> Collection[str]:
        return self.stages.absent

    def attach(self, leg: Leg, connection: Connection) -> Connection | None:
        """Have *connection* serve *leg*; returns the one it replaces, for the caller to close."""
        return leg.attach(connection, self.start)

    def start(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        self._nursery.start_soon(self._contain, task, *args)

    async def _contain(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """A fault of our own ends this session, not the process and the sessions of others."""
        try:
            await task(*args)
        except Exception:
            log.exception("session %s: internal error", self.id)
            self.end(Ending(INTERNAL_ERROR, "internal error", HOST))

    def send(self, direction: Direction, event: Event, step: int) -> str:
        """Have an event of ours walk from *step* on. Returns its id. Raises ``QueueFull``, and ``ValueError``
        for a ``session.update``: what stages want is said in ``configure``."""
        if direction == UPSTREAM and event.type == Client.SESSION_UPDATE:
            raise ValueError("nobody sends a session.update: use the configure hook and reconfigure()")
        self.lane(direction).require_room()
        event = self.veil.stamp(event) if direction == UPSTREAM else self.veil.signed(event)
        self.lane(direction).inject(event, step)
        return events.event_id_of(event.data) or ""

    def record(self, fact: Fact) -> None:
        fact = self._redact(with_session(fact, self.id))
        self.sums.add(fact)
        if isinstance(fact, ToolCalled):
            digest = self.upstream_edge.responses.answered(fact.call_id)
            fact = msgspec.structs.replace(fact, digest=digest)
        try:
            self._observer(fact)
        except Exception:
            # Whoever looks on must not harm what is looked at.
            log.exception("session %s: a %s was not recorded", self.id, type(fact).__name__)
        self.stages.show(fact)

    # --- what lanes ask of it -------------------------------------------------------------------------------

    def watched(self, call: HookCall, event: Event) -> None:
        self.watchers.show(call, self.view(call.stage), event.copy())

    async def deliver(self, direction: Direction, event: Event) -> str:
        if direction == DOWNSTREAM:
            return await self.client_edge.deliver(event)
        try:
            return await self.upstream_edge.deliver(event)
        except UnreadableEvent:
            log.warning("session %s: %s made an event that is no JSON", self.id, event.origin)
            return "lost"

    def decided(self, direction: Direction, event: Event, stage: str, verdict: Verdict) -> str:
        return outcomes.decided(self, direction, event, stage, verdict)

    def overflowed(self, direction: Direction, event: Event, stage: str) -> str:
        return outcomes.overflowed(self, direction, event, stage)

    def kind(self, event: Event) -> str:
        return kind_of(event, self.configuration.effective)

    def act_on_close(self, verdict: Close, stage: str) -> None:
        self.end(Ending(verdict.code, verdict.reason, stage))
