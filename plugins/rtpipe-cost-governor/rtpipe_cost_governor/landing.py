"""The end of a conversation that has used up what it may: told, said, played out, and only then closed."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from rtpipe import Event, OverLimit, QueueFull, Session, StoreError
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client
from rtpipe_cost_governor import answers, room
from rtpipe_cost_governor.state import State, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

COST = "Cost limit reached"
RESPONSES = "Response limit reached"
TIME = "Time limit reached"
UNPRICED = "Usage cannot be priced"
KILLED = "spending_stopped"
_NORMAL = 1000
_TRY_AGAIN_LATER = 1013
_RUNNING_S = 10.0
"""How long an answer that runs may go on before the goodbye."""
_GOODBYE_S = 15.0
_GOODBYE_TOKENS = 400
_PLAYOUT_S = 20.0


def begin(governor: "CostGovernor", session: Session[State], why: str) -> None:
    """Bring the conversation to its end, once."""
    if not session.state.landing:
        session.state.landing = why
        session.state.approach = trio.CancelScope()
        room.regate(governor, session)
        session.start_soon(_land, governor, session, why, session.state.approach)


def go_on(session: Session[State]) -> None:
    """What it was to end for is no longer so. Once the goodbye has begun it ends all the same."""
    state = session.state
    if state.approach is not None:
        state.approach.cancel()
        state.approach = None
        state.landing = ""


def kill(session: Session[Any]) -> None:
    """End it at once; the host stops what is being said."""
    message = "The operator of this gateway has stopped all spending: this conversation has ended."
    with suppress(QueueFull):
        session.send_downstream(Event(events.error_event(KILLED, message, own_id="")))
    session.close(_TRY_AGAIN_LATER, "Spending stopped")


def wrap_up(governor: "CostGovernor", session: Session[State], *, on: bool) -> None:
    """Tell the model to come to an end, or take that back, in a message that the caller does not see."""
    state = session.state
    if on and not state.told_to_end:
        state.told_to_end = session.lend_id()
        content = [{"type": "input_text", "text": governor.config.wrap_up_text}]
        item = {"id": state.told_to_end, "type": "message", "role": "system", "content": content}
        session.send_upstream(Event({"type": Client.ITEM_CREATE, "item": item}))
    elif not on and state.told_to_end:
        session.send_upstream(Event({"type": Client.ITEM_DELETE, "item_id": state.told_to_end}))
        state.told_to_end = ""


async def _land(
    governor: "CostGovernor", session: Session[State], why: str, approach: trio.CancelScope
) -> None:
    state = session.state
    speaks = governor.goodbye and session.effective.get("type") != "transcription"
    with approach:
        await _quiet(session, _RUNNING_S)
        for response_id in list(state.running):
            answers.cancel(session, response_id)
        await _quiet(session, _RUNNING_S)
        if not speaks:
            await _played_out(session)
    if approach.cancel_called:
        return
    state.approach = None
    if speaks:
        await _say_goodbye(governor, session)
        await _played_out(session)
    message = f"{why}: this conversation has ended."
    session.send_downstream(Event(events.error_event(answers.REACHED, message, own_id="")))
    session.close(_NORMAL, why)


async def _say_goodbye(governor: "CostGovernor", session: Session[State]) -> None:
    state = session.state
    create = {
        "type": Client.RESPONSE_CREATE,
        "response": {
            "instructions": governor.config.goodbye_text,
            "input": [],  # without the conversation, which is what makes answers dear
            "max_output_tokens": _GOODBYE_TOKENS,
            "tool_choice": "none",
        },
    }
    cost, tokens = worst_cost(session, create, _GOODBYE_TOKENS, governor.fallback)
    reserved = answers.reservation(session, cost, tokens, _GOODBYE_TOKENS, create)
    reserved.token_caps = ()
    try:
        await governor.books.reserve(reserved, goodbye=True)
        reserved.event_id = session.send_upstream(
            Event(events.with_create_metadata(create, reserved.metadata)), audible=True
        )
    except (OverLimit, StoreError, QueueFull):
        return  # then without a word
    state.pending.append(reserved)
    await _quiet(session, _GOODBYE_S)


async def _played_out(session: Session[State]) -> None:
    with trio.move_on_after(_PLAYOUT_S):
        await trio.sleep(session.meter.playout_ahead_s)


async def _quiet(session: Session[State], most_s: float) -> None:
    """Wait until nothing is being said, but no longer."""
    with trio.move_on_after(most_s):
        while not session.state.is_quiet:
            await session.state.changed.wait()
