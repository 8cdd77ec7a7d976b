"""What verdicts mean: who is told what, and which events turn round."""

from typing import TYPE_CHECKING

from rtpipe.api.errors import QueueFull
from rtpipe.api.event import HOST, Event, UnreadableEvent
from rtpipe.api.facts import Refused
from rtpipe.api.verdicts import Close, Drop, Reject, Reply, Verdict
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Direction
from rtpipe.session.closing import INTERNAL_ERROR, Ending

if TYPE_CHECKING:
    from rtpipe.session.session import Session


def decided(session: "Session", direction: Direction, event: Event, stage: str, verdict: Verdict) -> str:
    """Act on a verdict that ends an event's walk; returns the event's fate."""
    match verdict:
        case Drop():
            if direction == UPSTREAM and not verdict.ours:
                _refuse(session, event, stage, verdict.code, verdict.reason)
            return "dropped"
        case Reject():
            _refuse(session, event, stage, verdict.code, verdict.message)
            return "rejected"
        case Reply():
            _turn_round(session, direction, [each.copy(stage) for each in verdict.events], stage)
            return "replied"
        case Close():
            session.act_on_close(verdict, stage)
            return "closed"
    raise AssertionError(verdict)


def overflowed(session: "Session", direction: Direction, event: Event, stage: str) -> str:
    """A hold queue is full; returns the event's fate."""
    if direction == DOWNSTREAM:
        session.end(Ending(INTERNAL_ERROR, f"too much is held by {stage}", HOST))
    else:
        _refuse(
            session, event, stage, "event_queue_full", "Too many events are waiting; this one was not taken."
        )
    return "refused"


def _refuse(session: "Session", event: Event, stage: str, code: str, message: str) -> None:
    """Whoever sent the event learns that it was not let through: by event_id, from this stage on down."""
    session.record(Refused(stage=stage, code=code, message=message, principal=session.principal.id))
    try:
        event_id = events.event_id_of(event.data)
    except UnreadableEvent:
        event_id = None
    error = events.error_event(code, message, event_id=event_id, own_id=session.veil.own_id())
    _turn_round(session, UPSTREAM, [Event(error, origin=HOST)], stage)


def _turn_round(session: "Session", direction: Direction, replies: list[Event], stage: str) -> None:
    back: Direction = DOWNSTREAM if direction == UPSTREAM else UPSTREAM
    start = session.chain.step_of(stage, back) + 1
    for reply in replies:
        try:
            session.send(back, reply, start)
        except ValueError as exc:
            session.guard.failed(stage, "Reply", "nonsense", str(exc))
        except QueueFull:
            session.end(Ending(INTERNAL_ERROR, "too many replies are waiting", HOST))
            return
