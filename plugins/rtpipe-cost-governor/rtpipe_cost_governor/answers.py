"""An answer from the create to its end: paid for before it may begin, and stopped where that ends."""

from typing import TYPE_CHECKING

from rtpipe import Event, Json, OverLimit, Session, StoreError
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import DOWNSTREAM, Client, Server
from rtpipe_cost_governor import landing, room, savings
from rtpipe_cost_governor.books import Reserved
from rtpipe_cost_governor.state import LEAST_ANSWER_TOKENS, OUTPUT_TOKENS_PER_S, State, keep, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

STAMP = "rtpipe_cost_governor"
"""The metadata key by which a response is told to be the answer to a create; taken off again before others
see it."""
_MOST_METADATA = 16
REACHED = "cost_limit_reached"
RESERVED = "budget_reserved"
_ENVELOPE = 1.1
"""A delta is longer than the audio in it: its type and ids are a tenth at most, at 1 kB and more."""


def reservation(
    session: Session[State], micro_usd: int, tokens: int, output_tokens: int, create: Json | None = None
) -> Reserved:
    """To be written down, under the caps of this session; for a *create*, what tells its answer."""
    state = session.state
    number = f"{state.life}:{state.next_number()}"
    reserved = Reserved(
        id=f"{session.id}:{number}",
        micro_usd=micro_usd,
        tokens=tokens,
        output_tokens=output_tokens,
        caps=state.money,
        token_caps=state.tokens,
    )
    if create is not None:
        given = (events.response_of(create) or {}).get("input")
        reserved.is_apart = events.is_out_of_band(create)
        reserved.reads_all = not reserved.is_apart and not isinstance(given, list)
        reserved.event_id = events.event_id_of(create) or ""
        reserved.metadata = {STAMP: number}
        if len(events.response_metadata(create)) >= _MOST_METADATA:  # the upstream takes no more
            reserved.metadata = events.response_metadata(create)
    return reserved


async def reserve_and_release(
    governor: "CostGovernor", session: Session[State], key: str, create: Event
) -> None:
    """Let a create that is held go on, once what its answer may cost is on the disk."""
    state = session.state
    await room.refresh(governor, session)
    most = room.affordable(governor, session, create.data)
    if most < LEAST_ANSWER_TOKENS:
        _turn_away(governor, session, key)
        return
    cost, tokens = worst_cost(session, create.data, most, governor.fallback)
    reserved = reservation(session, cost, tokens, most, create.data)
    try:
        await governor.books.reserve(reserved)
    except OverLimit:  # somebody was quicker
        _turn_away(governor, session, key)
        return
    except StoreError:
        session.drop_held(key, "What this answer may cost cannot be written down now.")
        raise
    state.pending.append(reserved)
    stamped = events.with_create_metadata(savings.clamped(create.data, most), reserved.metadata)
    if not session.release(key, create.replace(stamped)):
        state.pending.remove(reserved)
        await governor.books.settle(reserved, 0, 0)


def _turn_away(governor: "CostGovernor", session: Session[State], key: str) -> None:
    """No room for this answer: because all is spent, or because others have reserved what is left."""
    if room.is_used_up(governor, session):
        session.drop_held(key, "The budget is used up.", code=REACHED)
        landing.begin(governor, session, landing.COST)
    else:
        message = (
            "What the budget has left beside answers that run does not pay for this one; ask again later."
        )
        session.drop_held(key, message, code=RESERVED)


def begun(governor: "CostGovernor", session: Session[State], created: Json) -> None:
    """The answer to a create that went up, or one that voice activity detection began by itself."""
    state = session.state
    response_id = events.response_id_of(created) or ""
    state.responses += 1
    keep(session)
    reserved = _asked_for(state, created)
    state.running[response_id] = reserved
    if reserved is not None:
        state.pending.remove(reserved)
        _meter(session, response_id, reserved.output_tokens)
    else:
        session.start_soon(_reserve_what_runs, governor, session, response_id)
    if state.caps.max_responses is not None and state.responses >= state.caps.max_responses:
        room.regate(governor, session)
    state.tell_waiters()


def _asked_for(state: State, created: Json) -> Reserved | None:
    """What was reserved for this response; None where nobody here asked for it."""
    metadata = events.response_metadata(created)
    for reserved in state.pending:
        if reserved.metadata.items() <= metadata.items():
            state.repeats_metadata = True
            return reserved
    if state.repeats_metadata or STAMP in metadata:
        return None
    # An upstream that repeats no metadata, or has not shown yet that it does: of the creates that may run
    # beside others, and of those that may not, the first is answered first.
    apart = not events.is_in_conversation(created)
    return next((reserved for reserved in state.pending if reserved.is_apart == apart), None)


async def _reserve_what_runs(governor: "CostGovernor", session: Session[State], response_id: str) -> None:
    """It is being spent already, so it counts whatever the caps say; and it is cut where they end."""
    state = session.state
    most = max(0, room.affordable(governor, session, {}))
    clamp = state.caps.max_output_tokens
    cost, tokens = worst_cost(session, {}, clamp, governor.fallback)
    reserved = reservation(session, cost, tokens, min(most, clamp))
    if state.landing or most < LEAST_ANSWER_TOKENS:
        cancel(session, response_id)
    else:
        _meter(session, response_id, min(most, clamp))
    await governor.books.reserve(reserved, limited=False)
    if response_id in state.running:
        state.running[response_id] = reserved
    else:  # it was over before this was written, and is in the books
        await governor.books.settle(reserved, 0, 0)
    room.regate(governor, session)


def _meter(session: Session[State], response_id: str, output_tokens: int) -> None:
    """Cancel the answer when more audio has come than was reserved."""
    seconds = output_tokens / OUTPUT_TOKENS_PER_S
    passed = session.meter.count(DOWNSTREAM, Server.AUDIO_DELTA).bytes
    allowed = int(seconds * savings.audio_bytes_per_second_out(session) * 4 / 3 * _ENVELOPE)
    session.meter.at(Server.AUDIO_DELTA, passed + max(1, allowed), lambda: cancel(session, response_id))


def cancel(session: Session[State], response_id: str) -> None:
    """Stop an answer that has reached what it may cost."""
    state = session.state
    if response_id in state.running and response_id not in state.cancelled:
        state.cancelled.add(response_id)
        session.send_upstream(Event({"type": Client.RESPONSE_CANCEL, "response_id": response_id}))


def refused(governor: "CostGovernor", session: Session[State], error: Json) -> None:
    """A create that the upstream refuses costs nothing."""
    _, event_id, _ = events.error_of(error)
    for reserved in session.state.pending:
        if event_id is not None and reserved.event_id == event_id:
            session.state.pending.remove(reserved)
            governor.start_soon(governor.books.settle, reserved, 0, 0)
            session.state.tell_waiters()
            break


def give_up(governor: "CostGovernor", state: State) -> None:
    """Nobody will say any more what these came to, so what is reserved for them counts."""
    for reserved in (*state.pending, *state.running.values()):
        if reserved is not None and reserved.durable:
            governor.books.give_up(reserved)
    state.pending.clear()
    state.running.clear()
