"""What is limited by the clock: how long a session lasts, and how much it sends in a second."""

from collections import deque
from typing import TYPE_CHECKING

import trio

from rtpipe import Event, Session
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import UPSTREAM
from rtpipe_cost_governor import landing, room
from rtpipe_cost_governor.config import Caps
from rtpipe_cost_governor.state import State

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

POLICY_VIOLATION = 1008
WINDOW_S = 10


def are_limited(caps: Caps) -> bool:
    """Whether there is anything to watch."""
    return (caps.max_minutes, caps.max_events_per_s, caps.max_bytes_per_s) != (None, None, None)


def watch_if_limited(governor: "CostGovernor", session: Session[State]) -> None:
    """From the first such limit on, watch as long as the session lasts."""
    if are_limited(session.state.caps) and not session.state.rates_watched:
        session.state.rates_watched = True
        session.start_soon(watch, governor, session)


async def watch(governor: "CostGovernor", session: Session[State]) -> None:
    """Look at the host's counters once a second."""
    seen: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)
    while True:
        caps = session.state.caps
        seen.append(session.meter.total(UPSTREAM))
        if room.is_reached(governor, session, landing.TIME):
            landing.begin(governor, session, landing.TIME)
        frames, size = (new - old for new, old in zip(seen[-1], seen[0], strict=True))
        for name, count, most in (
            ("events", frames, caps.max_events_per_s),
            ("bytes", size, caps.max_bytes_per_s),
        ):
            if most is not None and count > most * WINDOW_S:
                message = f"More than {most} {name} a second were sent for {WINDOW_S} seconds."
                error = events.error_event("rate_limit_exceeded", message, own_id="")
                session.send_downstream(Event(error))
                session.close(POLICY_VIOLATION, "Rate limit reached")
                return
        await trio.sleep(1)
