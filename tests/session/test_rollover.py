"""Another upstream takes over, or was to: when the session ends meanwhile, its connection is closed."""

import time
from typing import Any

import trio

from rtpipe import Event, Plugin, Session, on_server
from rtpipe.api.event import HOST
from rtpipe.session.closing import Ending
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness
from rtpipe.testing.harness import End
from rtpipe.transport.memory import memory_pair

OVER = Ending(1000, "", HOST)


def created(**session: Any) -> dict[str, Any]:
    return {"type": "session.created", "event_id": "e0", "session": {"type": "realtime", **session}}


async def test_one_that_waits_for_a_moment_at_which_nobody_speaks(autojump_clock: Any) -> None:
    async with ChainHarness({}, redials=True) as chain:
        first = chain.upstream
        await first.send(created(expires_at=int(time.time()) + 100))
        await chain.client.send({"type": "response.create"})
        await trio.sleep(60)
        next_one = chain.upstream
        assert next_one is not first
        assert next_one.closing is None
    assert next_one.closing is not None
    assert first.closing is not None


async def test_one_whose_time_is_up_by_a_clock_that_is_wrong(autojump_clock: Any) -> None:
    """Were it replaced, so were its successors, again and again."""
    async with ChainHarness({}, redials=True) as chain:
        first = chain.upstream
        for remaining_s in (-3000, 1, 20):
            await first.send(created(expires_at=int(time.time()) + remaining_s))
            await trio.sleep(100)
            assert chain.upstream is first


class Slow(Plugin):
    """Takes its time over the end of an answer."""

    @on_server("response.done")
    async def wait(self, session: Session[Any], event: Event) -> None:
        await trio.sleep(0.1)


async def test_one_that_waits_for_what_the_last_one_said(autojump_clock: Any) -> None:
    async with ChainHarness({"slow": Slow}, limits=SessionLimits(settle_s=0.05)) as chain:
        ours, theirs = memory_pair()
        await chain.upstream.send({"type": "response.done", "event_id": "e1", "response": {"id": "r"}})
        chain.session.end(OVER)
        await trio.sleep(0.01)
        chain.session.start(chain.session.attach_upstream, ours)
        next_one = End(theirs, chain._nursery)
    assert next_one.closing is not None


async def test_one_that_takes_its_time_to_hear_what_was_said(autojump_clock: Any) -> None:
    async with ChainHarness({}) as chain:
        first = chain.upstream
        for n in "123":
            item = {"id": n, "type": "message", "role": "user", "content": []}
            await first.send({"type": "conversation.item.added", "event_id": n, "item": item})
        ours, _ = memory_pair(1)
        chain.session.start(chain.session.attach_upstream, ours)
        await chain.settle()
        chain.session.end(OVER)
    assert first.closing is not None
