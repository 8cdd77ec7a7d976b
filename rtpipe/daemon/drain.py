"""The end of the daemon, without cutting anybody short: answers in progress are finished and played out."""

import logging

import trio

from rtpipe.api.event import HOST
from rtpipe.daemon.process import Process
from rtpipe.session.closing import SERVICE_RESTART, Ending
from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.daemon")

STOP_LIMIT_S = 10.0
"""What sessions may take to end once they are told to."""


async def drain(process: Process) -> None:
    """End each session as soon as it is idle, and all of them after ``drain_timeout_s``."""
    timeout_s = process.config.limits.drain_timeout_s
    ending = Ending(SERVICE_RESTART, "service restart", HOST)
    async with trio.open_nursery() as waiting:

        def end_when_idle(session: Session) -> None:
            waiting.start_soon(_end_when_idle, session, ending)

        if timeout_s:
            process.drain(end_when_idle)
            with trio.move_on_after(timeout_s) as patience:
                await process.empty()
            if patience.cancelled_caught:
                log.warning("drain_timeout_s is over: %d sessions are cut short", len(process.sessions))
        process.end_sessions(ending)
        with trio.move_on_after(STOP_LIMIT_S):
            await process.empty()
        waiting.cancel_scope.cancel()


async def _end_when_idle(session: Session, ending: Ending) -> None:
    """Wait until everything asked for is answered, and what was answered is heard. The caller bounds it."""
    while session.ending is None:
        await session.answered()
        ahead_s = session.meter.playout_ahead_s
        if not ahead_s:
            session.end(ending)
        # While it is being heard the client may ask again.
        await trio.sleep(ahead_s)
