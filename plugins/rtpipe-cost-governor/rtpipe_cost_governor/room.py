"""The caps a session lives under, what is left of them, and what follows when that is little."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rtpipe import Json, Session
from rtpipe_cost_governor import landing, rates, savings
from rtpipe_cost_governor.books import Cap, counter_keys
from rtpipe_cost_governor.config import Caps, micro
from rtpipe_cost_governor.state import LEAST_ANSWER_TOKENS, State, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

log = logging.getLogger(__name__)


def caps_of(governor: "CostGovernor", session: Session[State], own: Mapping[str, str]) -> Caps:
    """What the operator has written by now for this caller, and said for this session alone.

    Raises ``ValueError`` for limits of the caller's that cannot be understood.
    """
    return governor.config.caps.of({**session.principal.limits, **own})


async def set_caps(governor: "CostGovernor", session: Session[State]) -> None:
    """Have the session live under what the operator says by now. Raises ``ValueError`` as ``caps_of``."""
    state, books = session.state, governor.books
    while not state.over:
        caps = caps_of(governor, session, state.own_caps)
        money, tokens = _counters(governor, session, caps)
        keys = {cap.key for cap in (*money, *tokens)}
        # First, so that nobody forgets what is looked up now.
        governor.sharing.update(keys - state.counted_on)
        state.counted_on |= keys
        if await books.look((*money, *tokens)):
            continue  # that took its time: perhaps he says something else by now
        state.caps, state.money, state.tokens = caps, money, tokens
        _leave(governor, state, state.counted_on - keys)
        return


def _counters(
    governor: "CostGovernor", session: Session[State], caps: Caps
) -> tuple[tuple[Cap, ...], tuple[Cap, ...]]:
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
    who, periods = session.principal.id, governor.periods
    return (
        counter_keys("usd", periods, session.id, who, in_micro, now, governor.goodbye),
        counter_keys("tokens", periods, session.id, who, tokens, now),
    )


def leave(governor: "CostGovernor", state: State) -> None:
    """The session is over: it is no longer one of those that share its counters."""
    state.over = True
    _leave(governor, state, state.counted_on)


def _leave(governor: "CostGovernor", state: State, keys: set[str]) -> None:
    governor.sharing.subtract(keys)
    gone = [key for key in keys if governor.sharing[key] <= 0]
    for key in gone:
        del governor.sharing[key]
    governor.books.forget_counters(gone)
    state.counted_on = state.counted_on - keys


async def renew(governor: "CostGovernor", session: Session[State]) -> None:
    """The operator says something else than before: what follows for a conversation that goes on."""
    try:
        await set_caps(governor, session)
    except ValueError as exc:
        who = session.principal.id
        log.warning("limits of principal %s: %s; session %s keeps those it has", who, exc, session.id)
        return
    state = session.state
    if not state.admitted:
        return  # it is about to be
    state.price = governor.table.price(state.dialled_model, state.upstream_kind)
    rates.watch_if_limited(governor, session)
    session.reconfigure()
    if state.landing and not is_reached(governor, session, state.landing):
        landing.go_on(session)
    judge(governor, session)
    regate(governor, session)


async def refresh(governor: "CostGovernor", session: Session[State]) -> None:
    """A new day has new counters."""
    if any(cap.expires_at <= governor.books.now() for cap in session.state.money):
        await set_caps(governor, session)


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


def is_reached(governor: "CostGovernor", session: Session[State], why: str) -> bool:
    """Whether what a conversation is being ended for is so still."""
    state = session.state
    most, minutes = state.caps.max_responses, state.caps.max_minutes
    if why == landing.COST:
        return is_used_up(governor, session)
    if why == landing.RESPONSES:
        return most is not None and state.responses >= most
    if why == landing.TIME:
        return minutes is not None and session.now() - state.began_s >= minutes * 60
    return True


def look_at(governor: "CostGovernor", session: Session[State]) -> None:
    """After something was spent: what follows for this session, and for those that share its budgets."""
    judge(governor, session)
    for each in governor.live:
        regate(governor, each)


def judge(governor: "CostGovernor", session: Session[State]) -> None:
    """What was spent against the caps: alarms, a word to the model, an end."""
    state = session.state
    fraction = 0.0
    for cap in (*state.money, *state.tokens):
        if cap.limit is not None:
            part = governor.books.spent(cap) / cap.limit if cap.limit else 1.0
            fraction = max(fraction, part)
            governor.alarms.budget(session, cap, part)
    landing.wrap_up(governor, session, on=fraction >= governor.config.wrap_up_fraction)
    if not state.landing and is_used_up(governor, session):
        landing.begin(governor, session, landing.COST)


def regate(governor: "CostGovernor", session: Session[State]) -> None:
    """Near a cap turns are gated: then no answer begins by itself. Far from it nobody pays for that.

    Far is where every session that shares the budget could begin two answers of the longest kind.
    """
    state = session.state
    if not state.admitted:
        return  # it is about to be, and then asked for
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
