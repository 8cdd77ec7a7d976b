"""What a use of the model came to: judged, recorded, and written down beyond the life of the session."""

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from rtpipe import Event, Json, Session, facts
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import UPSTREAM, Client
from rtpipe_cost_governor import landing, room, savings
from rtpipe_cost_governor.answers import reservation
from rtpipe_cost_governor.bill import Bill, bill_for
from rtpipe_cost_governor.books import Entry, Reserved, entry_for
from rtpipe_cost_governor.state import State, keep, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

log = logging.getLogger(__name__)


def response(governor: "CostGovernor", session: Session[State], event: Event) -> None:
    """Bill a response that is over, however it ended."""
    state, data = session.state, event.data
    response_id = events.response_id_of(data) or ""
    told = events.response_of(data) or {}
    reserved = state.running.pop(response_id, None)
    state.cancelled.discard(response_id)
    # Where the upstream was lost it is the host that says so, and nobody says what it came to.
    lost = event.origin == "host"
    made = None if lost else bill_for(data, state.price, governor.fallback)
    bill = judged(governor, session, made, told, reserved, lost=lost)
    in_conversation = events.is_in_conversation(data)
    reads_all = in_conversation and (reserved is None or reserved.reads_all)
    if bill.usage.total and reads_all:
        state.context.billed(bill.usage, session.meter.count(UPSTREAM, Client.AUDIO_APPEND).bytes)
    elif in_conversation:
        state.context.longer_by(bill.usage)
    if reserved is None:
        # Its reservation is still being written.
        reserved = reservation(session, bill.micro_usd, bill.usage.total, 0)
    cycle = response_id
    if in_conversation:
        cycle = state.cycle or response_id
        state.cycle = cycle if events.calls_in(data) else ""
    status = str(told.get("status"))
    book(governor, session, reserved, bill, status=status, response_id=response_id, cycle=cycle)
    governor.alarms.answered(failed=status == "failed")
    if reads_all:
        savings.judge_cache(session, bill.usage)
        savings.prune(governor, session, bill.usage)
    state.tell_waiters()


def transcription(governor: "CostGovernor", session: Session[State], event: Json) -> None:
    """Bill what the caller said; it was transcribed by a model with a price of its own."""
    config = session.effective
    audio = config.get("audio")
    given = audio.get("input") if isinstance(audio, dict) else None
    chosen = given.get("transcription") if isinstance(given, dict) else None
    model = str((chosen or {}).get("model") or session.model)
    price = governor.table.price(model, session.state.upstream_kind, "transcription")
    bill = bill_for(event, price, governor.fallback_heard)
    if bill is None or not bill.micro_usd:
        return
    if bill.doubt:
        governor.warn_once(f"usage of {model}: {bill.doubt}")
        if not price.known and governor.config.unpriced == "allow":
            bill = msgspec.structs.replace(bill, micro_usd=0, parts={})
    reserved = reservation(session, bill.micro_usd, bill.usage.total, 0)
    book(governor, session, reserved, bill, status="completed", transcribed_by=model)


def judged(
    governor: "CostGovernor",
    session: Session[State],
    bill: Bill | None,
    response: Any,
    reserved: Reserved | None,
    *,
    lost: bool,
) -> Bill:
    """The bill, or what is taken for it where the upstream says nothing or contradicts itself."""
    usage = savings.NOTHING
    if lost:
        estimate = reserved.micro_usd if reserved is not None else _longest(governor, session)
        if governor.config.unpriced == "allow" and not session.state.price.known:
            estimate = 0
        return Bill(usage=usage, micro_usd=estimate, parts={"audio_out": estimate}, doubt="connection lost")
    if bill is None:
        generated = response.get("output") or response.get("status") not in ("failed", "cancelled")
        estimate = reserved.micro_usd if reserved is not None else 0
        if generated and reserved is None:
            estimate = _longest(governor, session)
        if not generated:
            return Bill(usage=usage, micro_usd=0, parts={})
        bill = Bill(usage=usage, micro_usd=estimate, parts={"audio_out": estimate}, doubt="no usage")
        if governor.config.unpriced == "allow":
            bill = Bill(usage=usage, micro_usd=0, parts={}, doubt="no usage")
    if bill.doubt:
        governor.warn_once(f"usage of {session.model}: {bill.doubt}")
        if governor.config.unpriced == "allow" and not session.state.price.known:
            bill = msgspec.structs.replace(bill, micro_usd=0, parts={})
        if governor.config.unpriced == "refuse":
            landing.begin(governor, session, landing.UNPRICED)
    return bill


def _longest(governor: "CostGovernor", session: Session[State]) -> int:
    """What the longest answer may cost, in micro-dollars."""
    return worst_cost(session, {}, session.state.caps.max_output_tokens, governor.fallback)[0]


def book(
    governor: "CostGovernor",
    session: Session[State],
    reserved: Reserved,
    bill: Bill,
    *,
    status: str,
    response_id: str = "",
    cycle: str = "",
    transcribed_by: str = "",
) -> None:
    """Say what it came to, and write it down."""
    state = session.state
    entry = entry_for(
        bill,
        at=governor.books.now(),
        principal=session.principal.id,
        session=session.id,
        model=transcribed_by or session.model,
        kind="transcription" if transcribed_by else "response",
        status=status,
        cycle=cycle,
    )
    session.record(
        facts.Spent(
            principal=entry.principal,
            model=entry.model,
            micro_usd=entry.micro_usd,
            usage=entry.usage,
            response_id=response_id,
            cycle=entry.cycle,
            image_micro_usd=bill.image_micro_usd,
        )
    )
    over = bill.micro_usd - reserved.micro_usd
    if over > 0:
        governor.worst_overshoot = max(governor.worst_overshoot, over)
        log.info("session %s: an answer cost $%.6f more than was reserved", session.id, over / 1e6)
    state.image_micro_usd += bill.image_micro_usd
    keep(session)
    governor.alarms.spent(session, bill)
    governor.start_soon(_write, governor, session, reserved, entry)


async def _write(governor: "CostGovernor", session: Session[State], reserved: Reserved, entry: Entry) -> None:
    """The entry first: after a crash between the two, the reservation still counts, and once."""
    if not reserved.durable:
        await governor.books.reserve(reserved, limited=False)
    await governor.books.write(reserved.id, entry)
    await governor.books.settle(reserved, entry.micro_usd, int(entry.usage.get("total", 0)))
    if session in governor.live:
        room.look_at(governor, session)
