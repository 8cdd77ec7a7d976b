"""A client that is gone and may come back: its session waits for it, and what it has missed waits too."""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from rtpipe.api.event import Event
from rtpipe.api.facts import LegChanged
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Server
from rtpipe.protocol.reading import Unreadable, decode, peek_server_type
from rtpipe.session.closing import NORMAL, client_ended, may_come_back
from rtpipe.session.limits import Share
from rtpipe.session.pausing import Pausing
from rtpipe.transport.connection import Closing, Connection, ConnectionLost

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")


class Parking:
    """Does nothing in a session whose client has not named it."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.is_possible = False
        self.was_resumed = False
        self.pausing = Pausing(session)
        self._begun: set[str] = set()
        """Answers whose beginning the client has been told, and not the end."""
        self._unplaced: set[str] = set()
        """Those of them that it cannot place: another connection had told it."""
        self._missed: deque[bytes] = deque()
        self._missed_bytes = 0
        self._audio_s = 0.0
        self._gone = Counter[str]()
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._share = Share(session.limits.held)
        """What is kept while the client is gone: all that it has missed, and what it was sent last."""
        self._window = trio.CancelScope()
        self._resuming = trio.Lock()
        self._moved = trio.lowlevel.ParkingLot()

    def allow(self) -> None:
        """The client has named the session, so that it can find it again."""
        self.is_possible = True
        self._session.client.shown = self._shown
        self._session.client.missed = self.keep

    def sent_and_missed(self) -> tuple[list[bytes], list[bytes]]:
        """What the client was sent last, and what it was not, audio apart."""
        recent, missed = (
            [payload for payload in payloads if peek_server_type(payload) != Server.AUDIO_DELTA]
            for payloads in (self._recent, self._missed)
        )
        return recent, missed

    def restore(self, recent: Sequence[bytes], missed: Sequence[bytes]) -> None:
        """As another process has left it."""
        self._shown(recent)
        self._missed.extend(missed)
        self._missed_bytes = sum(map(len, missed))

    def lost(self, closing: Closing) -> None:
        """The client's connection has ended of itself: the session waits for another, or ends."""
        session = self._session
        self.wake()
        if not self.is_possible or session.ending is not None or not may_come_back(closing):
            session.end(client_ended(closing))
            return
        cause = f"{closing.code} {closing.reason}".rstrip()
        session.record(LegChanged(leg="client", change="parked", cause=cause))
        self._make_room()
        self.pausing.pause()
        session.changed()
        self._window = trio.CancelScope()  # now: it may be back before the task has begun
        session.start(self._wait, self._window, closing, cause)

    async def _wait(self, window: trio.CancelScope, closing: Closing, cause: str) -> None:
        session = self._session
        with window:
            await session.stages.tell("client_detached", cause)
            await trio.sleep(session.limits.resume_window_s)
            session.end(client_ended(closing))

    def _make_room(self) -> None:
        """What it was sent last gives way to what waits: of what all sessions may keep it gets no more than
        half."""
        budget = self._share.budget
        while self._recent and budget.held - self._share.held + self._recent_bytes > budget.limit / 2:
            self._recent_bytes -= len(self._recent.popleft())
        self._share.hold(self._recent_bytes + sum(map(len, self._missed)))

    def keep(self, payload: bytes) -> str:
        """A server event that no client is there for; returns its fate."""
        limits, (size, seconds) = self._session.limits, self._weight(payload)
        too_long = seconds and self._audio_s + seconds > limits.parked_audio_s
        has_room = not too_long and self._share.take(len(payload))
        if seconds and not has_room:
            self._gone["audio event(s) not kept"] += 1
            return "lost"
        self._audio_s += seconds
        self._missed_bytes += size
        if not has_room or self._missed_bytes > limits.parked_bytes:
            log.warning("session %s: too much waits for its client", self._session.id)
            self._session.end(client_ended(Closing(1006, "too much waited for the client", clean=False)))
            return "lost"
        self._missed.append(payload)
        return "kept"

    def _weight(self, payload: bytes) -> tuple[int, float]:
        """Its bytes, or if it is audio its seconds: for each there is a limit."""
        if peek_server_type(payload) == Server.AUDIO_DELTA:
            return 0, events.audio_delta_bytes(payload) / self._session.meter.audio_bytes_per_second
        return len(payload), 0.0

    # --- it comes back --------------------------------------------------------------------------------------

    async def resume(self, connection: Connection, after: str | None) -> None:
        """Have *connection* serve the client leg: first ``session.created``, then what was missed.

        *after* is the last event that the client has; without it, it is told nothing of an answer whose
        beginning it was told by another connection. Raises ``ConnectionLost``.
        """
        session = self._session
        async with self._resuming:
            self._window.cancel()
            self.was_resumed = True
            try:
                await self._take_off()
                self._sort_out(after)
                await self._tell_missed(connection)
            except BaseException:
                connection.abort("lost while it resumed")
                self.lost(Closing(1006, "lost while it resumed", clean=False))
                raise
            if session.ending is not None:
                await connection.close(session.ending.code, session.ending.reason)
                return
            self._missed_bytes, self._audio_s = 0, 0.0
            self._share.hold(0)
            report = ", ".join(f"{count} {what}" for what, count in self._gone.items() if count)
            self._gone.clear()
            session.attach(session.client, connection)
            self.pausing.go_on()
        self.wake()
        session.record(LegChanged(leg="client", change="resumed", cause=report))
        await session.stages.tell("client_attached")

    async def _take_off(self) -> None:
        """Take off the connection that served the client leg: from now on events wait."""
        client = self._session.client
        before = client.detach()
        if client.is_sending and client.last is not None:
            # Only when the send has ended it is known what the client cannot have.
            client.last.abort("replaced by another connection")
            await client.sent()
        elif before is not None:
            self._session.start(before.close, NORMAL, "replaced by another connection")

    async def _tell_missed(self, connection: Connection) -> None:
        created = self._created()
        await connection.send(created)
        self._shown([created])
        while self._missed:
            missed, self._missed = list(self._missed), deque()
            taken = len(missed)
            try:
                await connection.send_many(missed)
            except ConnectionLost as loss:
                taken = loss.taken
                raise
            finally:
                self._shown(missed[:taken])
                self._missed.extendleft(reversed(missed[taken:]))
                weights = [self._weight(payload) for payload in self._missed]
                self._missed_bytes = sum(size for size, _ in weights)
                self._audio_s = sum(seconds for _, seconds in weights)

    async def left(self, connection: Connection) -> None:
        """Wait until *connection* serves the client leg no more, as when the session has closed it."""
        while self._session.client.connection is connection:
            await self._moved.park()

    def closed(self) -> None:
        """The session is over: nobody comes for what waits."""
        if self._missed:
            self._session.sums.lose("client", f"{len(self._missed)} event(s) that it did not come back for")
        self._share.close()

    def wake(self) -> None:
        """Who serves the client leg has changed."""
        self._moved.unpark_all()

    def _created(self) -> bytes:
        configuration = self._session.configuration
        shown = configuration.shown(configuration.effective or configuration.asked)
        return Event(events.session_created(shown, self._session.veil.own_id())).payload

    def _sort_out(self, after: str | None) -> None:
        """Make what was missed what is to be sent."""
        found = None if after is None else self._since(after)
        if found is not None:
            self._missed.extendleft(reversed(found))
            self._unplaced.clear()
        else:
            self._gone["event(s) that may not have arrived"] += self._doubtful()
            self._gone["position that is not known any more"] += after is not None
            self._leave_out_tails()

    def _leave_out_tails(self) -> None:
        placed, begun = deque[bytes](), set[str]()
        for payload in self._missed:
            response_id = _response_of(payload)
            if peek_server_type(payload) == Server.RESPONSE_CREATED and response_id:
                begun.add(response_id)
            if not response_id or response_id in begun:
                placed.append(payload)
        self._gone["event(s) of an answer begun before"] += len(self._missed) - len(placed)
        ended = {_response_of(p) for p in self._missed if peek_server_type(p) == Server.RESPONSE_DONE}
        self._begun -= ended
        self._unplaced = set(self._begun)
        self._gone["answer(s) begun before that go on"] += len(self._unplaced)
        self._missed = placed

    @property
    def hides(self) -> bool:
        """Whether there is an answer of which the client must be told nothing."""
        return bool(self._unplaced)

    def hides_event(self, event: Event) -> bool:
        """Whether this is about such an answer."""
        response_id = _response_of(event.payload) if self._unplaced else None
        if response_id is None or response_id not in self._unplaced:
            return False
        if event.type == Server.RESPONSE_DONE:
            self._unplaced.discard(response_id)
            self._begun.discard(response_id)
        return True

    def _doubtful(self) -> int:
        """How many of the events that were sent last may not have arrived: the client's kernel has not said
        so."""
        last = self._session.client.last
        rest, count = 0 if last is None else last.unacknowledged(), 0
        for payload in reversed(self._recent):
            if rest <= 0:
                break
            rest -= len(payload)
            count += 1
        return count

    def _since(self, event_id: str) -> list[bytes] | None:
        """What was sent behind this event, which is to be sent again; None if it is not known any more."""
        recent = list(self._recent)
        for place in range(len(recent) - 1, -1, -1):
            if event_id.encode() in recent[place] and _id_of(recent[place]) == event_id:
                self._recent = deque(recent[: place + 1])
                self._recent_bytes = sum(map(len, self._recent))
                # Not the greeting of a connection that is no more.
                return [p for p in recent[place + 1 :] if peek_server_type(p) != Server.SESSION_CREATED]
        return None

    def _shown(self, payloads: Sequence[bytes]) -> None:
        """These have gone out to the client."""
        for payload in payloads:
            kind = peek_server_type(payload)
            if kind in (Server.RESPONSE_CREATED, Server.RESPONSE_DONE) and (answer := _response_of(payload)):
                (self._begun.add if kind == Server.RESPONSE_CREATED else self._begun.discard)(answer)
        self._recent.extend(payloads)
        self._recent_bytes += sum(map(len, payloads))
        while self._recent_bytes > 2 * self._session.limits.parked_bytes:
            self._recent_bytes -= len(self._recent.popleft())


def _response_of(payload: bytes) -> str | None:
    try:
        return events.response_id_of(decode(payload))
    except Unreadable:
        return None


def _id_of(payload: bytes) -> str | None:
    try:
        return events.event_id_of(decode(payload))
    except Unreadable:
        return None
