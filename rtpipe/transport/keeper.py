"""One task that looks at every connection once a second, so that none needs a task of its own."""

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
