"""What a use of the model came to: judged, recorded, and written down beyond the life of the session."""

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from rtpipe import Session, facts
from rtpipe_cost_governor import landing, savings
from rtpipe_cost_governor.bill import Bill
from rtpipe_cost_governor.books import Entry, Reserved, entry_for
from rtpipe_cost_governor.state import State, worst_cost

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

log = logging.getLogger(__name__)


def judged(
    governor: "CostGovernor",
    session: Session[State],
    bill: Bill | None,
    response: Any,
    reserved: Reserved | None,
    *,
    lost: bool,
) -> Bill:
    """The bill, or what is taken for it where the upstream says nothing or contradicts itgovernor."""
    usage = savings.NOTHING
    if bill is None:
        generated = lost or response.get("output") or response.get("status") not in ("failed", "cancelled")
        estimate = reserved.micro_usd if reserved is not None else 0
        if generated and reserved is None:
            estimate, _ = worst_cost(session, {}, session.state.caps.max_output_tokens, governor.fallback)
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
            landing.begin(governor, session, "Usage cannot be priced")
    return bill


def book(
    governor: "CostGovernor",
    session: Session[State],
    reserved: Reserved,
    bill: Bill,
    status: str,
    response_id: str,
    transcription: str = "",
) -> None:
    state = session.state
    entry = entry_for(
        bill,
        at=governor.books.now(),
        principal=session.principal.id,
        session=session.id,
        model=transcription or session.model,
        kind="transcription" if transcription else "response",
        status=status,
        cycle=state.cycle if response_id else "",
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
    governor.alarms.spent(session, bill)
    governor.start_soon(_write, governor, session, reserved, entry)


async def _write(governor: "CostGovernor", session: Session[State], reserved: Reserved, entry: Entry) -> None:
    """The entry first: after a crash between the two, the reservation still counts, and once."""
    if not reserved.durable:
        await governor.books.reserve(reserved, limited=False)
    await governor.books.write(reserved.id, entry)
    await governor.books.settle(reserved, entry.micro_usd, int(entry.usage.get("total", 0)))
    if session in governor.live:
        governor.look_at(session)
