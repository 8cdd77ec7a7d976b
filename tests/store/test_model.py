"""The store against a plain dictionary: any order of calls, clock steps and restarts."""

import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtpipe.store import OverLimit, Store, UnknownReservation

KEPT_S = 3600
counter_keys = st.sampled_from(["day", "month", "all"])
record_keys = st.sampled_from(["a", "a/1", "a/2", "b"])
ids = st.sampled_from(["r", "s", "t"])
amounts = st.integers(0, 20)
periods = st.none() | st.integers(0, 100)


@dataclass
class Counter:
    settled: int
    ends: float | None
    open: dict[str, int] = field(default_factory=dict)  # reservation id to amount

    def total(self) -> int:
        return self.settled + sum(self.open.values())


@dataclass
class Made:
    amount: int
    counters: dict[str, Counter]
    forgotten: float | None
    settled: int | None = None


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.counters: dict[str, Counter] = {}
        self.made: dict[str, Made] = {}
        self.records: dict[str, tuple[bytes, float | None]] = {}
        self.directory = tempfile.TemporaryDirectory()
        # The loop lives in a thread of its own, so that each rule can be one plain call.
        started = threading.Event()
        self.loop = threading.Thread(target=trio.run, args=(self._serve, started))
        self.loop.start()
        started.wait()
        self._open()

    async def _serve(self, started: threading.Event) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self.ended = trio.Event()
        started.set()
        await self.ended.wait()

    def _run(self, call: Callable[..., Awaitable[Any]], *arguments: object, **named: object) -> Any:
        async def run() -> Any:
            return await call(*arguments, **named)

        return trio.from_thread.run(run, trio_token=self.token)

    def _open(self) -> None:
        path = Path(self.directory.name) / "store.db"
        self.store = self._run(Store.open, path, now=lambda: self.now)
        self.space = self.store.namespace("one")

    def teardown(self) -> None:
        self._run(self.store.close)
        trio.from_thread.run_sync(self.ended.set, trio_token=self.token)
        self.loop.join()
        self.directory.cleanup()

    def _living(self, ends: float | None) -> bool:
        return ends is None or ends > self.now

    def _total(self, key: str) -> int:
        counter = self.counters.get(key)
        return counter.total() if counter is not None and self._living(counter.ends) else 0

    def _obtain(self, key: str, ends: float | None) -> Counter:
        counter = self.counters.get(key)
        if counter is None or not self._living(counter.ends):
            counter = self.counters[key] = Counter(0, ends)
        return counter

    def _find(self, id: str) -> Made | None:
        made = self.made.get(id)
        return made if made is not None and self._living(made.forgotten) else None

    @rule(step=st.sampled_from([1, 50, 100, KEPT_S]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule()
    def restart(self) -> None:
        self._run(self.store.close)
        self._open()

    @rule(key=counter_keys, amount=st.integers(-20, 20), period=periods)
    def add(self, key: str, amount: int, period: int | None) -> None:
        ends = None if period is None else self.now + period
        counter = self._obtain(key, ends)
        counter.settled += amount
        assert self._run(self.space.add, key, amount, expires_at=ends) == counter.total()

    @rule(
        limits=st.dictionaries(counter_keys, st.none() | st.integers(0, 60), min_size=1),
        amount=amounts,
        id=ids,
        period=periods,
    )
    def reserve(self, limits: dict[str, int | None], amount: int, id: str, period: int | None) -> None:
        ends = {} if period is None else {key: self.now + period for key in limits if key != "all"}
        expected: object
        made = self._find(id)
        if made is not None:
            same = made.settled is None and made.amount == amount and made.counters.keys() == limits.keys()
            expected = {key: self._total(key) for key in limits} if same else ValueError
        elif any(limit is not None and self._total(key) + amount > limit for key, limit in limits.items()):
            expected = OverLimit
        else:
            counters = {key: self._obtain(key, ends.get(key)) for key in limits}
            for counter in counters.values():
                counter.open[id] = counter.open.get(id, 0) + amount
            all_ends = [counter.ends for counter in counters.values()]
            forgotten = None if None in all_ends else max(e for e in all_ends if e is not None) + KEPT_S
            self.made[id] = Made(amount, counters, forgotten)
            expected = {key: counter.total() for key, counter in counters.items()}
        try:
            answer = self._run(self.space.reserve, limits, amount, id=id, expires_at=ends)
        except (OverLimit, ValueError) as error:
            answer = type(error)
        assert answer == expected

    @rule(id=ids, amount=amounts)
    def settle(self, id: str, amount: int) -> None:
        expected: object = UnknownReservation
        if (made := self._find(id)) is not None:
            if made.settled is None:
                made.settled = amount
                made.forgotten = self.now + KEPT_S
                for counter in made.counters.values():
                    counter.settled += amount
                    counter.open[id] -= made.amount
            expected = made.settled
        try:
            answer = self._run(self.space.settle, id, amount)
        except UnknownReservation as error:
            answer = type(error)
        assert answer == expected

    @rule(key=record_keys, value=st.binary(max_size=3), ttl_s=st.none() | st.integers(0, 100))
    def put(self, key: str, value: bytes, ttl_s: int | None) -> None:
        self.records[key] = (value, None if ttl_s is None else self.now + ttl_s)
        self._run(self.space.put, key, value, ttl_s)

    @rule(
        key=record_keys,
        knows_it=st.booleans(),
        value=st.none() | st.binary(max_size=3),
        ttl_s=st.none() | st.integers(0, 100),
    )
    def swap(self, key: str, knows_it: bool, value: bytes | None, ttl_s: int | None) -> None:
        kept, ends = self.records.get(key, (None, None))
        standing = kept if self._living(ends) else None
        old = standing if knows_it else b"another"
        assert self._run(self.space.swap, key, old, value, ttl_s=ttl_s) == knows_it
        if knows_it and value is None:
            self.records.pop(key, None)
        elif knows_it and value is not None:
            self.records[key] = (value, None if ttl_s is None else self.now + ttl_s)

    @rule(key=record_keys)
    def delete(self, key: str) -> None:
        self.records.pop(key, None)
        self._run(self.space.delete, key)

    @rule(prefix=st.sampled_from(["", "a", "a/", "b", "z"]), after=st.just("") | record_keys)
    def scan(self, prefix: str, after: str) -> None:
        expected = {
            key: value
            for key, (value, ends) in sorted(self.records.items())
            if key.startswith(prefix) and key > after and self._living(ends)
        }
        answer = self._run(self.space.scan, prefix, after=after)
        assert list(answer.items()) == list(expected.items())

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        for key in ("day", "month", "all"):
            assert self._run(self.space.counter, key) == self._total(key)
        unsettled = {found.id: (found.amount, set(found.keys)) for found in self._run(self.space.unsettled)}
        assert unsettled == {
            id: (made.amount, made.counters.keys())
            for id in self.made
            if (made := self._find(id)) is not None and made.settled is None
        }
        for key, (value, ends) in self.records.items():
            assert self._run(self.space.get, key) == (value if self._living(ends) else None)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=20, stateful_step_count=30, derandomize=True, deadline=None, database=None
)
