"""A client that is gone and may come back: its session waits for it, and what it has missed waits too."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from rtpipe.api.event import Event
from rtpipe.api.facts import LegChanged
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Server
from rtpipe.protocol.reading import Unreadable, decode, peek_server_type
from rtpipe.session.closing import NORMAL, client_ended, may_come_back
from rtpipe.transport.connection import Closing, Connection

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")


class Parking:
    """Does nothing in a session whose client has not named it."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.is_possible = False
        self.was_resumed = False
        self._missed: deque[bytes] = deque()
        self._missed_bytes = 0
        self._audio_s = 0.0
        self._dropped = 0
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._window = trio.CancelScope()
        self._resuming = trio.Lock()
        self._moved = trio.lowlevel.ParkingLot()

    def allow(self) -> None:
        """The client has named the session, so that it can find it again."""
        self.is_possible = True
        self._session.client.shown = self._shown

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
        if not self.is_possible or session.ending is not None or not may_come_back(closing):
            session.end(client_ended(closing))
            return
        cause = f"{closing.code} {closing.reason}".rstrip()
        session.record(LegChanged(leg="client", change="parked", cause=cause))
        self.wake()
        session.start(self._wait, closing, cause)

    async def _wait(self, closing: Closing, cause: str) -> None:
        session = self._session
        with trio.CancelScope() as self._window:
            await session.tell_stages("client_detached", cause)
            await trio.sleep(session.limits.resume_window_s)
            session.end(client_ended(closing))

    def keep(self, payload: bytes) -> str:
        """A server event that no client is there for; returns its fate."""
        if self._recent and self._recent[-1] is payload:
            self._recent_bytes -= len(self._recent.pop())  # it was being sent when the connection broke
        limits = self._session.limits
        if peek_server_type(payload) == Server.AUDIO_DELTA:
            seconds = events.audio_delta_bytes(payload) / self._session.meter.audio_bytes_per_second
            if self._audio_s + seconds > limits.parked_audio_s:
                self._dropped += 1
                return "lost"
            self._audio_s += seconds
        else:
            self._missed_bytes += len(payload)
            if self._missed_bytes > limits.parked_bytes:
                log.warning("session %s: too much waits for its client", self._session.id)
                self._session.end(client_ended(Closing(1006, "too much waited for the client", clean=False)))
                return "lost"
        self._missed.append(payload)
        return "kept"

    # --- it comes back --------------------------------------------------------------------------------------

    async def resume(self, connection: Connection, after: str | None) -> None:
        """Have *connection* serve the client leg: first ``session.created``, then what was missed.

        *after* is the last event that the client has; without it, it is told nothing of an answer whose
        beginning it was told by another connection. Raises ``ConnectionLost``.
        """
        session = self._session
        async with self._resuming:
            if (before := session.client.detach()) is not None:
                session.start(before.close, NORMAL, "replaced by another connection")
            self._window.cancel()
            self.was_resumed = True
            report = self._sort_out(after)
            try:
                await connection.send(self._created())
                while self._missed:
                    missed, self._missed = list(self._missed), deque()
                    await connection.send_many(missed)
                    self._shown(missed)
            except BaseException:
                session.start(connection.close, NORMAL, "")
                self.lost(Closing(1006, "lost while it resumed", clean=False))
                raise
            self._missed_bytes, self._audio_s, self._dropped = 0, 0.0, 0
            session.attach(session.client, connection)
        self.wake()
        session.record(LegChanged(leg="client", change="resumed", cause=report))
        await session.tell_stages("client_attached")

    async def left(self, connection: Connection) -> None:
        """Wait until *connection* serves the client leg no more, or the session has ended."""
        while self._session.client.connection is connection and self._session.ending is None:
            await self._moved.park()

    def wake(self) -> None:
        """Who serves the client leg has changed, or the session has ended."""
        self._moved.unpark_all()

    def _created(self) -> bytes:
        configuration = self._session.configuration
        shown = configuration.shown(configuration.effective or configuration.asked)
        return Event(events.session_created(shown, self._session.veil.own_id())).payload

    def _sort_out(self, after: str | None) -> str:
        """Make what was missed what is to be sent; returns what is not."""
        dropped = [(self._dropped, "audio event(s) not kept")]
        found = None if after is None else self._since(after)
        if found is not None:
            self._missed = deque([*found, *self._missed])
        else:
            placed, tail = deque[bytes](), 0
            begun: set[str] = set()
            for payload in self._missed:
                response_id = _response_of(payload)
                if peek_server_type(payload) == Server.RESPONSE_CREATED and response_id:
                    begun.add(response_id)
                if response_id and response_id not in begun:
                    tail += 1
                else:
                    placed.append(payload)
            self._missed = placed
            dropped.append((tail, "event(s) of an answer begun before"))
            if after is not None:
                dropped.append((1, "position that is not known any more"))
        self._recent.clear()
        self._recent_bytes = 0
        return ", ".join(f"{count} {what}" for count, what in dropped if count)

    def _since(self, event_id: str) -> list[bytes] | None:
        """What was sent behind this event; None if it is not known any more."""
        recent = list(self._recent)
        for place in range(len(recent) - 1, -1, -1):
            if event_id.encode() in recent[place] and _id_of(recent[place]) == event_id:
                return recent[place + 1 :]
        return None

    def _shown(self, payloads: Sequence[bytes]) -> None:
        """These go out to the client."""
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
