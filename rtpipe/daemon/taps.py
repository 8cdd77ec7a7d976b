"""Taps: bounded views of what happens, for whoever may watch. A slow watcher misses lines, nobody waits."""

from collections import deque
from collections.abc import Callable

import msgspec
import trio

from rtpipe.api.event import Event
from rtpipe.api.facts import Fact
from rtpipe.daemon.messages import EventSeen, FactSeen, Hello, Message, Missed
from rtpipe.protocol.catalogue import Direction

QUEUE_LINES = 1000
QUEUE_BYTES = 8 * 1024 * 1024
"""Of events; one alone may be larger."""
_encode = msgspec.json.Encoder().encode


class Tap:
    """One watcher: what it wants to see, and what it has yet to see."""

    def __init__(
        self, hello: Hello, redact: Callable[[str, bytes], bytes] = lambda _, payload: payload
    ) -> None:
        self._redact = redact
        self._session = hello.session
        self._exact = {kind for kind in hello.types or () if not kind.endswith("*")}
        self._prefixes = tuple(kind[:-1] for kind in hello.types or ("*",) if kind.endswith("*"))
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._missed = 0
        self.ended = False
        """Whether there will be nothing more to see."""
        self._changed = trio.lowlevel.ParkingLot()

    def event(self, session: str, direction: Direction, event: Event) -> None:
        """An event passes a client edge."""
        if self._wants(session) and (event.type in self._exact or event.type.startswith(self._prefixes)):
            payload = self._redact(event.type, event.payload)
            seen = EventSeen(session=session, direction=direction, event=msgspec.Raw(payload))
            self._put(seen, len(event.payload))

    def fact(self, fact: Fact) -> None:
        """A fact was recorded."""
        if self._wants(fact.session):
            fields = msgspec.to_builtins(fact)
            self._put(FactSeen(fact=type(fact).__name__, fields=fields))

    async def next_lines(self) -> list[bytes]:
        """Wait for something to see; returns all of it, and nothing at the end."""
        while not self._queue and not self.ended:
            await self._changed.park()
        lines = [_encode(message) for message in self._queue]
        self._queue.clear()
        self._bytes = 0
        if self._missed:
            lines.append(_encode(Missed(count=self._missed)))
            self._missed = 0
        return lines

    def end(self) -> None:
        """There will be nothing more to see; what is left still is."""
        self.ended = True
        self._changed.unpark_all()

    def _wants(self, session: str) -> bool:
        return self._session is None or self._session == session

    def _put(self, message: Message, payload_bytes: int = 0) -> None:
        too_much = self._bytes + payload_bytes > QUEUE_BYTES and self._queue
        if too_much or len(self._queue) >= QUEUE_LINES:
            self._missed += 1
            return
        self._queue.append(message)
        self._bytes += payload_bytes
        self._changed.unpark_all()
