"""The end of a conversation that has used up what it may: told, said, played out, and only then closed."""

from typing import TYPE_CHECKING

import trio

from rtpipe import Event, OverLimit, QueueFull, Session, StoreError
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client
from rtpipe_cost_governor import answers, room
from rtpipe_cost_governor.state import State, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

NORMAL = 1000
_RUNNING_S = 10.0
"""How long an answer that runs may go on before the goodbye."""
_GOODBYE_S = 15.0
_GOODBYE_TOKENS = 400
_PLAYOUT_S = 20.0


def begin(governor: "CostGovernor", session: Session[State], why: str) -> None:
    """Bring the conversation to its end, once."""
    if not session.state.landing:
        session.state.landing = why
        room.regate(governor, session)
        session.start_soon(_land, governor, session, why)


def system_item(text: str) -> Event:
    """A message to the model that the caller does not see."""
    content = [{"type": "input_text", "text": text}]
    return Event(
        {"type": Client.ITEM_CREATE, "item": {"type": "message", "role": "system", "content": content}}
    )


async def _land(governor: "CostGovernor", session: Session[State], why: str) -> None:
    state = session.state
    await _quiet(session, _RUNNING_S)
    for response_id in list(state.running):
        answers.cancel(session, response_id)
    await _quiet(session, _RUNNING_S)
    if governor.goodbye and session.effective.get("type") != "transcription":
        await _say_goodbye(governor, session)
    with trio.move_on_after(_PLAYOUT_S):
        await trio.sleep(session.meter.playout_ahead_s)
    message = f"{why}: this conversation has ended."
    session.send_downstream(Event(events.error_event(answers.REACHED, message, own_id="")))
    session.close(NORMAL, why)


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


async def _quiet(session: Session[State], most_s: float) -> None:
    """Wait until nothing is being said, but no longer."""
    with trio.move_on_after(most_s):
        while not session.state.is_quiet:
            await session.state.changed.wait()
