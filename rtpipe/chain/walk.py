"""The walk: one event through the links of one direction.

The walk asks each stage in turn and acts on its verdict. What an outcome means for sockets, queues and the
other direction is the business of its surroundings: the session.
"""

from collections.abc import Container, Sequence
from typing import Any, Protocol

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import Event
from rtpipe.api.verdicts import Close, Drop, Hold, Reject, Reply, Verdict
from rtpipe.chain.compile import Chain, Link
from rtpipe.chain.guard import Guard, HookCall
from rtpipe.protocol.catalogue import Direction

PLUGIN_FAILED = 1011


class Surroundings(Protocol):
    """What a walk needs of the session it takes place in."""

    @property
    def holding(self) -> bool:
        """Whether anything waits anywhere in this direction."""
        ...

    @property
    def absent(self) -> Container[str]:
        """Stages that are left out of this session."""
        ...

    def view(self, stage: str) -> Any:
        """The session as this stage sees it."""
        ...

    def must_wait(self, event: Event, step: int) -> bool:
        """Whether the event has to queue at this step; if so it has been queued."""
        ...

    def watched(self, call: HookCall, event: Event) -> None:
        """A watcher wants to see this event."""
        ...

    async def arrived(self, event: Event) -> None:
        """The event has passed every stage."""
        ...

    def stopped(self, event: Event, step: int, stage: str, verdict: Verdict) -> None:
        """A stage decided that the event goes no further."""
        ...

    def expanded(self, count: int) -> None:
        """One event became this many."""
        ...


async def walk(
    chain: Chain,
    guard: Guard,
    direction: Direction,
    event: Event,
    start: int,
    around: Surroundings,
    *,
    cleared: int = -1,
) -> None:
    """Take *event* from step *start* to the far edge. At step *cleared* it has done its waiting."""
    pending = [(event, start)]
    while pending:
        current, step = pending.pop()
        links = chain.links(direction, current.type)
        if not links and not around.holding:
            await around.arrived(current)
            continue
        following = await _step_through(chain, guard, direction, current, step, around, cleared)
        pending.extend(reversed(following))


async def _step_through(
    chain: Chain,
    guard: Guard,
    direction: Direction,
    event: Event,
    start: int,
    around: Surroundings,
    cleared: int,
) -> list[tuple[Event, int]]:
    """Walk one event on; returns what became of it if it became several."""
    links = chain.links(direction, event.type)
    for step in range(start, len(chain)):
        if step != cleared and around.holding and around.must_wait(event, step):
            return []
        link = links[step] if links else None
        if link is None or link.stage.name == event.origin or link.stage.name in around.absent:
            continue
        if link.watch is not None:
            around.watched(link.watch, event)
        if link.decide is None:
            continue
        verdict = await decide(guard, link, around.view(link.stage.name), event)
        if event.was_read:
            event = event.copy()
        if verdict is None:
            continue
        if isinstance(verdict, Event):
            if verdict.type != event.type:
                links = chain.links(direction, verdict.type)
            event = verdict
            continue
        if isinstance(verdict, Sequence):
            around.expanded(len(verdict))
            return [(each, step + 1) for each in verdict]
        around.stopped(event, step, link.stage.name, verdict)
        return []
    await around.arrived(event)
    return []


async def decide(guard: Guard, link: Link, view: Any, event: Event) -> Verdict:
    """Ask one stage; a failure becomes the verdict its policy names."""
    call = link.decide
    assert call is not None
    try:
        return _checked(guard, call, event, await guard.call(call, view, event))
    except Refused as exc:
        guard.failed(call.stage, call.hook, "Refused", "raised Refused in an event hook: return reject(…)")
        return Reject(event, exc.code, exc.message)
    except HookFailed:
        if call.on_error == "pass":
            return None
        if call.on_error == "drop":
            return Drop(f"The {call.stage} plugin failed on this event.")
        return Close(PLUGIN_FAILED, f"plugin {call.stage} failed")


def _checked(guard: Guard, call: HookCall, event: Event, verdict: Any) -> Verdict:
    """The verdict, if it is one. Raises ``HookFailed`` for nonsense."""
    if verdict is event:
        if event.was_changed_in_place:
            raise guard.failed(
                call.stage, call.hook, "nonsense", "changed event.data in place: return event.replace(data)"
            )
        return None
    if verdict is None or isinstance(verdict, Event):
        return _inherit(event, verdict)
    if isinstance(verdict, list | tuple) and verdict and all(isinstance(each, Event) for each in verdict):
        return [_inherit(event, each) or each for each in verdict]
    if isinstance(verdict, Close) and not _closable(verdict.code):
        raise guard.failed(
            call.stage, call.hook, "nonsense", f"close code {verdict.code} is not for the wire"
        )
    if isinstance(verdict, Drop | Hold | Reply | Reject | Close):
        return verdict
    raise guard.nonsense(call, verdict)


def _inherit(event: Event, verdict: Event | None) -> Event | None:
    """What a stage makes of an event still comes from whoever caused it."""
    if verdict is not None and not verdict.origin:
        verdict.origin = event.origin
    return verdict


def _closable(code: object) -> bool:
    return code in {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
