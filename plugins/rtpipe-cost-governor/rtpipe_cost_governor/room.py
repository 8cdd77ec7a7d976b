"""The caps a session lives under, what is left of them, and what follows when that is little."""

from typing import TYPE_CHECKING

from rtpipe import Json, Session
from rtpipe_cost_governor import landing, savings
from rtpipe_cost_governor.books import Cap, counter_keys
from rtpipe_cost_governor.config import Caps, micro
from rtpipe_cost_governor.state import LEAST_ANSWER_TOKENS, State, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor


async def set_caps(governor: "CostGovernor", session: Session[State], caps: Caps) -> None:
    """Have the session live under these caps from now on."""
    state = session.state
    everybody, now = governor.config.everybody, governor.books.now()
    money = {
        "session": caps.budget_usd,
        "day": caps.day_budget_usd,
        "month": caps.month_budget_usd,
        "all_day": everybody.day_usd,
        "all_month": everybody.month_usd,
    }
    tokens = {
        "session": caps.budget_tokens,
        "day": caps.day_budget_tokens,
        "month": caps.month_budget_tokens,
        "all_day": everybody.day_tokens,
        "all_month": everybody.month_tokens,
    }
    in_micro = {name: None if usd is None else micro(usd) for name, usd in money.items()}
    who = session.principal.id
    leave(governor, state)
    state.caps = caps
    state.money = counter_keys("usd", governor.periods, session.id, who, in_micro, now, governor.goodbye)
    state.tokens = counter_keys("tokens", governor.periods, session.id, who, tokens, now)
    state.counted_on = tuple(cap.key for cap in _all(state) if cap.limit is not None)
    governor.sharing.update(state.counted_on)
    await governor.books.look(_all(state))


def leave(governor: "CostGovernor", state: State) -> None:
    """The session is no longer one of those that share these counters."""
    governor.sharing.subtract(state.counted_on)
    gone = [key for key in state.counted_on if governor.sharing[key] <= 0]
    for key in gone:
        del governor.sharing[key]
    governor.books.forget_counters(gone)
    state.counted_on = ()


async def refresh(governor: "CostGovernor", session: Session[State]) -> None:
    """A new day has new counters."""
    if any(cap.expires_at <= governor.books.now() for cap in session.state.money):
        await set_caps(governor, session, session.state.caps)


def affordable(governor: "CostGovernor", session: Session[State], create: Json) -> int:
    """How many tokens an answer may have: the clamp, or what is left of the tightest budget."""
    state, books = session.state, governor.books
    most = savings.asked_for(create, state.caps.max_output_tokens)
    for left, unit in ((books.room(state.money), 0), (books.room(state.tokens), 1)):
        if left is None:
            continue
        base = worst_cost(session, create, 0, governor.fallback)[unit]
        thousand = worst_cost(session, create, 1000, governor.fallback)[unit] - base
        most = min(most, max(0, (left - base) * 1000 // max(1, thousand)))
    return most


def is_used_up(governor: "CostGovernor", session: Session[State]) -> bool:
    """Whether it is what was spent, not what others have reserved, that leaves no room."""
    state = session.state
    for unit, caps in ((0, state.money), (1, state.tokens)):
        least = worst_cost(session, {}, LEAST_ANSWER_TOKENS, governor.fallback)[unit]
        if any(
            cap.limit is not None and governor.books.spent(cap) + cap.kept + least > cap.limit for cap in caps
        ):
            return True
    return False


def look_at(governor: "CostGovernor", session: Session[State]) -> None:
    """After something was spent: alarms, a word to the model, an end."""
    state = session.state
    fraction = 0.0
    for cap in _all(state):
        if cap.limit is not None:
            part = governor.books.spent(cap) / cap.limit
            fraction = max(fraction, part)
            governor.alarms.budget(session, cap, part)
    if fraction >= governor.config.wrap_up_fraction and not state.wrapping_up:
        state.wrapping_up = True
        session.send_upstream(landing.system_item(governor.config.wrap_up_text))
    if not state.landing and is_used_up(governor, session):
        landing.begin(governor, session, "Cost limit reached")
    for each in governor.live:
        regate(governor, each)


def regate(governor: "CostGovernor", session: Session[State]) -> None:
    """Near a cap turns are gated: then no answer begins by itself. Far from it nobody pays for that.

    Far is where every session that shares the budget could begin two answers of the longest kind.
    """
    state = session.state
    near = bool(state.landing)
    most = state.caps.max_output_tokens
    for unit, caps in ((0, state.money), (1, state.tokens)):
        cost = worst_cost(session, {}, most, governor.fallback)[unit]
        for cap in caps:
            if cap.limit is not None:
                left = cap.limit - cap.kept - governor.books.total(cap)
                near = near or left < 2 * cost * governor.sharing[cap.key]
    if state.caps.max_responses is not None:
        near = near or state.responses + 1 >= state.caps.max_responses
    if near != state.gated:
        state.gated = near
        session.gate_turns(near)


def _all(state: State) -> tuple[Cap, ...]:
    return (*state.money, *state.tokens)
