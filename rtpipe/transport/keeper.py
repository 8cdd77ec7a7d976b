"""One task that looks at every connection once a second, so that none needs a task of its own; and what there
is to see: whether the peer still answers pings."""

from typing import Final, Protocol

import trio

TICK_S: Final = 1.0


class Kept(Protocol):
    """What wants to be looked at."""

    def tick(self, now: float) -> None:
        """Called once a second with trio's time. Must neither raise nor take long."""
        ...


_kept: Final[trio.lowlevel.RunVar[set[Kept] | None]] = trio.lowlevel.RunVar("rtpipe connections", None)


def keep(connection: Kept) -> None:
    """Look after `connection` until it is let go."""
    kept = _kept.get()
    if kept is None:
        kept = set()
        _kept.set(kept)
        trio.lowlevel.spawn_system_task(_tick, kept, name="rtpipe keeper")
    kept.add(connection)


def let_go(connection: Kept) -> None:
    """Look after it no more. Once the last one has gone, the task ends."""
    kept = _kept.get()
    if kept is not None:
        kept.discard(connection)


async def _tick(kept: set[Kept]) -> None:
    try:
        while kept:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            for connection in tuple(kept):
                connection.tick(now)
    finally:
        _kept.set(None)


class Heartbeat:
    """When to ping a peer and when to give it up. Pings leave every `interval_s`; pongs have as long to come.

    Time counts from a ping that has left: behind a long write it is owed, and the write has its own deadline.
    """

    def __init__(self, interval_s: float, now: float) -> None:
        self.owes_ping = False
        self.reason = f"no pong within {interval_s:g} s"
        self._interval_s = interval_s
        self._next_ping = now + interval_s
        self._unanswered_since: float | None = None

    def tick(self, now: float, *, ponged: bool, could_answer: bool) -> None:
        """`ponged`: a pong has come since the last tick. `could_answer`: if not, for all we would know.

        A pong may lie unread where nobody reads, and none can come from amid a frame that still keeps coming:
        then the time of waiting begins anew.
        """
        if ponged:
            self._unanswered_since = None
        elif self._unanswered_since is not None and not could_answer:
            self._unanswered_since = now
        if now >= self._next_ping:
            self._next_ping = now + self._interval_s
            self.owes_ping = True

    def asked(self, now: float) -> None:
        """The ping that was owed leaves."""
        self.owes_ping = False
        if self._unanswered_since is None:
            self._unanswered_since = now

    def has_stopped(self, now: float) -> bool:
        """The peer no longer answers."""
        return self._unanswered_since is not None and now - self._unanswered_since >= self._interval_s
