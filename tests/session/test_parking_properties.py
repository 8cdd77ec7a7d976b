"""What holds however a client is cut off, slow, away and back, and its upstream with it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import facts
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness
from rtpipe.transport.connection import ConnectionLost
from rtpipe.transport.memory import MemoryConnection, memory_pair

PROFILE = settings(derandomize=True, max_examples=150, deadline=None, database=None)
AUDIO = "A" * 6400  # 0.1 s

STEPS = st.one_of(
    st.tuples(st.just("texts"), st.integers(1, 8)),
    st.tuples(st.just("audio"), st.integers(1, 8)),
    st.tuples(st.just("answer"), st.just(0)),
    st.tuples(st.just("item"), st.just(0)),
    st.tuples(st.just("read"), st.integers(1, 12)),
    st.tuples(st.just("cut"), st.just(0)),
    st.tuples(st.just("vanish"), st.just(0)),
    st.tuples(st.just("resume"), st.integers(1, 6)),
    st.tuples(st.just("cut upstream"), st.just(0)),
)


class Run:
    """A session between an upstream that numbers its events and a client that reads when it likes."""

    def __init__(self, chain: ChainHarness, *, counts: bool) -> None:
        self.chain = chain
        self.counts = counts
        self.told: list[str] = []
        """The ids of what the upstream sent."""
        self.got: list[str] = []
        """The ids of what the client read, but for the greetings of connections."""
        self.response = 0
        self.client: MemoryConnection | None = None

    async def begin(self) -> None:
        ours, self.client = memory_pair(3)
        await self.chain.session.attach_client(ours)
        self.chain.session.parking.allow()
        await self.tell("rate_limits.updated", rate_limits=[])  # who has nothing cannot count
        await self.read()

    async def tell(self, kind: str, **fields: Any) -> None:
        event_id = f"event_{len(self.told):04}"
        event = {"type": kind, "event_id": event_id, **fields}
        with suppress(ConnectionLost):  # cut, and no other there yet: nobody reads while the client does not
            await self.chain.upstream.connection.send(msgspec.json.encode(event))
            self.told.append(event_id)

    async def do(self, step: str, count: int) -> None:
        own = {"response_id": f"r{self.response}", "item_id": f"i{self.response}"}
        match step:
            case "texts":
                for _ in range(count):
                    await self.tell("response.output_text.delta", delta="x", **own)
            case "audio":
                for _ in range(count):
                    await self.tell("response.output_audio.delta", delta=AUDIO, **own)
            case "answer":
                await self.tell("response.done", response={"id": own["response_id"], "status": "completed"})
                self.response += 1
                await self.tell("response.created", response={"id": f"r{self.response}"})
            case "item":
                item = {"id": f"item_{len(self.told)}", "type": "message", "role": "user", "content": []}
                await self.tell("conversation.item.added", item=item)
            case "read":
                await self.read(count)
            case "cut":
                if self.client is not None:
                    self.client.abort()
            case "vanish":
                self.client = None  # and nobody notices
            case "resume":
                await self.resume(count)
            case "cut upstream":
                self.chain.upstream.connection.abort()
                await trio.sleep(1)
        await self.chain.settle()
        self.check_bounds()

    async def read(self, count: int = 10_000) -> None:
        if self.client is None:
            return
        try:
            for _ in range(count):
                with trio.move_on_after(0.01) as waited:
                    event = msgspec.json.decode(await self.client.receive())
                    if event["type"] != "session.created":
                        self.got.append(event["event_id"])
                if waited.cancelled_caught:
                    return
        except ConnectionLost:
            self.client = None

    async def resume(self, capacity: int) -> None:
        if self.chain.session.ending is not None:
            return
        ours, self.client = memory_pair(capacity)
        after = self.got[-1] if self.got and self.counts else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resume, ours, after)
            await trio.testing.wait_all_tasks_blocked()
            await self.read()

    async def _resume(self, ours: MemoryConnection, after: str | None) -> None:
        with suppress(ConnectionLost):
            await self.chain.session.parking.resume(ours, after)

    def check_bounds(self) -> None:
        parking, limits = self.chain.session.parking, self.chain.session.limits
        recent, missed = list(parking._recent), list(parking._missed)
        assert sum(map(len, recent)) <= 2 * limits.parked_bytes
        assert sum(len(payload) for payload in missed if AUDIO.encode() not in payload) <= limits.parked_bytes
        audio = sum(AUDIO.encode() in payload for payload in missed)
        assert audio * 0.1 <= limits.parked_audio_s + 0.001
        assert set(recent).isdisjoint(missed)


def play(steps: list[tuple[str, int]], *, counts: bool, **limits: Any) -> Run:
    async def main() -> Run:
        async with ChainHarness({}, limits=SessionLimits(**limits), redials=True) as chain:
            run = Run(chain, counts=counts)
            await run.begin()
            for step, count in steps:
                await run.do(step, count)
            await run.do("resume", 6)
            await run.do("read", 10_000)
            if chain.session.ending is None:
                assert chain.session.parking._missed_bytes == 0
                changes = [f for f in chain.facts if isinstance(f, facts.LegChanged) and f.leg == "client"]
                assert changes[-1].change == "resumed"
            chain.check_fates()
            return run

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@PROFILE
@given(st.lists(STEPS, max_size=25))
def test_a_client_that_counts_gets_everything_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    run = play(steps, counts=True, parked_audio_s=60.0)
    from_upstream = [each for each in run.got if each in set(run.told)]
    assert len(set(run.got)) == len(run.got)
    assert from_upstream == run.told


@PROFILE
@given(st.lists(STEPS, max_size=25))
def test_one_that_does_not_count_gets_nothing_twice_and_all_in_order(steps: list[tuple[str, int]]) -> None:
    run = play(steps, counts=False, parked_audio_s=0.3, parked_bytes=4096)
    from_upstream = [each for each in run.got if each in set(run.told)]
    assert len(set(run.got)) == len(run.got)
    assert from_upstream == sorted(from_upstream)
