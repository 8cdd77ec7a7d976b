"""The end of a session: what is on its way is delivered, the bill heard, the legs closed, the stages told."""

from typing import TYPE_CHECKING

import trio

from rtpipe.api.event import CLIENT
from rtpipe.api.facts import SessionClosed
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM
from rtpipe.session.closing import NORMAL, Ending

if TYPE_CHECKING:
    from rtpipe.session.session import Session


async def part(session: "Session", ending: Ending) -> None:
    """Each step has a limit of its own; the caller shields them."""
    async with trio.open_nursery() as last:
        last.start_soon(_hear_bill, session)
        await _say_goodbye(session, ending)
        if (client := session.client.connection) is not None:
            await client.close(ending.code, ending.reason)
            session.client.detach()
            session.parking.wake()
    session.stop_tasks()
    if session.upstream.connection is not None:
        # What a stage says is between us and the client; the upstream is told its own.
        told = (ending.code, ending.reason) if ending.cause == CLIENT else (NORMAL, "")
        await session.upstream.connection.close(*told)
    await session.stages.close(ending)
    for direction in (UPSTREAM, DOWNSTREAM):
        session.lane(direction).close()
    session.parking.closed()
    session.upstream_edge.carried.closed()
    session.record(_closed(session, ending))
    with trio.move_on_after(session.limits.settle_s):
        await session.watchers.flush()


async def _say_goodbye(session: "Session", ending: Ending) -> None:
    """Let the client have what was on its way, and the reason for the end, while it still reads."""
    if session.client.connection is None:
        return
    with trio.move_on_after(session.limits.settle_s):
        if ending.error is not None:
            session.client_edge.tell(*ending.error, None)
        await session.lane(DOWNSTREAM).settle()


async def _hear_bill(session: "Session") -> None:
    """What is being said is billed, whoever hears it: stop it, and hear what it came to."""
    if session.upstream.listening:
        with trio.move_on_after(session.limits.bill_s):
            await session.upstream_edge.quiet.billed()
            await session.lane(DOWNSTREAM).settle()
        session.upstream.stop_listening()


def _closed(session: "Session", ending: Ending) -> SessionClosed:
    sums = session.sums
    return SessionClosed(
        principal=session.principal.id,
        code=ending.code,
        reason=f"{ending.reason} ({ending.detail})" if ending.detail else ending.reason,
        cause=ending.cause,
        duration_s=trio.current_time() - session.began_s,
        model=session.model,
        turns=sums.turns,
        tokens=sums.tokens,
        micro_usd=sums.micro_usd,
        lost=sums.lost,
    )
