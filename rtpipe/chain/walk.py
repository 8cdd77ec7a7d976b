"""The walk: one event through the links of one direction.

The walk asks each stage in turn and acts on its verdict. What an outcome means for sockets, queues and the
other direction is the business of its surroundings: the session.
"""

from collections.abc import Container, Sequence
from time import perf_counter
from typing import Any, Final, Protocol, cast

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import Event
from rtpipe.api.verdicts import Close, Drop, Hold, Reject, Reply, Verdict
from rtpipe.chain.compile import Chain, Link
from rtpipe.chain.guard import Guard, HookCall
from rtpipe.protocol.catalogue import Direction

PLUGIN_FAILED = 1011
WIRE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""What may stand in a close frame."""


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
        """Whether the event, which the stage at this step has let pass, has to queue behind what waits there;
        if so it has been queued."""
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
) -> None:
    """Take *event* from step *start* to the far edge.

    A stage is asked about each event once, when it comes. What it lets pass may still have to wait there,
    behind something it holds.
    """
    pending = [(event, start)]
    while pending:
        current, step = pending.pop()
        links = chain.links(direction, current.type)
        if not links and not around.holding:
            await around.arrived(current)
            continue
        following = await _step_through(chain, guard, direction, current, step, around)
        pending.extend(reversed(following))


async def _step_through(
    chain: Chain,
    guard: Guard,
    direction: Direction,
    event: Event,
    start: int,
    around: Surroundings,
) -> list[tuple[Event, int]]:
    """Walk one event on; returns what became of it if it became several."""
    links = chain.links(direction, event.type)
    for step in range(start, len(chain)):
        link = links[step] if links else None
        if link is not None and link.stage.name != event.origin and link.stage.name not in around.absent:
            verdict = await _ask(guard, link, event, around)
            if event.was_read:
                event = event.copy()
            if isinstance(verdict, Event):
                if verdict.type != event.type:
                    links = chain.links(direction, verdict.type)
                event = verdict
            elif isinstance(verdict, Sequence):
                around.expanded(len(verdict))
                return [(each, step + 1) for each in verdict if not _waits(each, step, around)]
            elif verdict is not None:
                around.stopped(event, step, link.stage.name, verdict)
                return []
        if _waits(event, step, around):
            return []
    await around.arrived(event)
    return []


def _waits(event: Event, step: int, around: Surroundings) -> bool:
    return around.holding and around.must_wait(event, step)


async def _ask(guard: Guard, link: Link, event: Event, around: Surroundings) -> Verdict:
    """Show an event to one stage's watcher and hook."""
    if link.watch is not None:
        around.watched(link.watch, event)
    if link.decide is None:
        return None
    return await decide(guard, link, around.view(link.stage.name), event)


async def decide(guard: Guard, link: Link, view: Any, event: Event) -> Verdict:
    """Ask one stage; a failure becomes the verdict its policy names."""
    call = link.decide
    assert call is not None
    began = perf_counter()
    try:
        verdict = await _decide(guard, call, view, event)
    except BaseException:
        guard.decided(call.stage, perf_counter() - began, "cancelled")
        raise
    guard.decided(call.stage, perf_counter() - began, "pass" if verdict is None else type(verdict).__name__)
    return verdict


async def _decide(guard: Guard, call: HookCall, view: Any, event: Event) -> Verdict:
    try:
        verdict = await guard.call(call, view, event)
        if verdict is None:
            return None
        if (why := _fault(event, verdict)) is not None:
            raise guard.failed(call.stage, call.hook, "nonsense", why)
        return _own(event, verdict)
    except Refused as exc:
        guard.failed(call.stage, call.hook, "Refused", "raised Refused in an event hook: return reject(…)")
        return Reject(event, str(exc.code), str(exc.message))
    except HookFailed:
        if call.on_error == "pass":
            return None
        if call.on_error == "drop":
            return Drop(f"The {call.stage} plugin failed on this event.")
        return Close(PLUGIN_FAILED, f"plugin {call.stage} failed")


def _fault(event: Event, verdict: object) -> str | None:
    """What is wrong with a verdict, so that nobody behind the guard stumbles over it."""
    match verdict:
        case Event():
            if verdict is event and event.was_changed_in_place:
                return "changed event.data in place: return event.replace(data)"
            return None
        case Hold(key=str(text), event=None | Event()):
            return None if _is_text(text) else "returned text that is no UTF-8"
        case Drop(reason=str(text), code=str(code)) | Reject(code=str(code), message=str(text)):
            return None if _is_text(code + text) else "returned text that is no UTF-8"
        case Reply(events=events) if all(isinstance(each, Event) for each in events):
            return None
        case Close(code=int(code), reason=str(text)):
            if code not in WIRE_CODES:
                return f"close code {code} is not for the wire"
            return None if _is_text(text) else "returned text that is no UTF-8"
        case list() | tuple() if verdict and all(isinstance(each, Event) for each in verdict):
            return None
    return f"returned {type(verdict).__name__}"


def _own(event: Event, verdict: Any) -> Verdict:
    """The verdict with events of its own, which the plugin can no longer change.

    What a stage makes of an event still comes from whoever caused it.
    """
    if isinstance(verdict, Event):
        return None if verdict is event else verdict.copy(verdict.origin or event.origin)
    if isinstance(verdict, list | tuple):
        return [each.copy(each.origin or event.origin) for each in verdict]
    if isinstance(verdict, Hold) and verdict.event is not None:
        return Hold(verdict.key, verdict.event.copy(verdict.event.origin or event.origin))
    return cast("Verdict", verdict)


def _is_text(text: str) -> bool:
    """Whether JSON and close frames can carry it: Python's strings may hold lone surrogates."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
