"""Commits that fail, disks that fill up or hang, callers that leave."""

# ruff: noqa: ASYNC240 - a test may wait for a small file

import resource
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from rtpipe.store import Namespace, OverLimit, Store, StoreError, UnknownReservation, database, tables, writer
from rtpipe.store.writer import Writer


class Gate:
    """Keeps the writer's thread at work until it is opened, as a slow disk would."""

    def __init__(self, thread: Writer) -> None:
        self._thread = thread
        self._entered = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._opened = threading.Event()

    def _work(self, _db: sqlite3.Connection, _now: float) -> None:
        self._token.run_sync_soon(self._entered.set)
        assert self._opened.wait(10)

    async def shut(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._thread.call, self._work)
        await self._entered.wait()

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
async def gate(store: Store) -> AsyncIterator[Gate]:
    gate = Gate(store._writer)
    yield gate
    gate.open()


class Connection(sqlite3.Connection):
    """Counts its commits; `fault` is raised in place of the next ones."""

    commits = 0
    fault: Exception | None = None

    def execute(self, sql, *arguments):
        if sql == "COMMIT":
            self.commits += 1
            if self.fault is not None:
                raise self.fault
        return super().execute(sql, *arguments)


@pytest.fixture
def connections(monkeypatch) -> list[Connection]:
    """Every connection a store makes, the newest last."""
    made: list[Connection] = []
    connect = sqlite3.connect

    def remember(*arguments, **options) -> Connection:
        made.append(connect(*arguments, **options, factory=Connection))
        return made[-1]

    monkeypatch.setattr(database.sqlite3, "connect", remember)
    return made


async def waiting(thread: Writer, count: int) -> None:
    while thread._queue.qsize() < count:
        await trio.lowlevel.checkpoint()


def attempt(
    nursery: trio.Nursery, call: Callable[..., object], *arguments: object, **named: object
) -> list[object]:
    """Starts the call; the list gets its result or its error."""
    outcome: list[object] = []

    async def run() -> None:
        try:
            outcome.append(await call(*arguments, **named))  # type: ignore[misc]
        except Exception as error:
            outcome.append(error)

    nursery.start_soon(run)
    return outcome


async def test_calls_that_wait_share_one_commit(
    connections, store: Store, space: Namespace, gate: Gate
) -> None:
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        before = connections[-1].commits
        for _ in range(20):
            nursery.start_soon(space.add, "k", 1)
        await waiting(store._writer, 20)
        gate.open()
    assert await space.counter("k") == 20
    assert connections[-1].commits - before == 3  # the gate's, the one of all twenty, the reading one


async def test_a_refusal_undoes_nothing_of_its_neighbours(store: Store, space: Namespace, gate: Gate) -> None:
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        outcomes = [
            attempt(nursery, space.reserve, {"day": 10, f"{id}": None}, 6, id=f"{id}") for id in range(3)
        ]
        await waiting(store._writer, 3)
        gate.open()
    kinds = sorted(type(outcome).__name__ for (outcome,) in outcomes)
    assert kinds == ["OverLimit", "OverLimit", "dict"]
    assert await space.counter("day") == 6
    assert sum([await space.counter(f"{id}") for id in range(3)]) == 6


async def test_a_failed_commit_fails_all_who_shared_it_once(
    connections, store: Store, space: Namespace, gate: Gate
) -> None:
    await space.add("before", 1)
    (first,) = connections
    fault = sqlite3.OperationalError("disk I/O error")
    fault.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    fault.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        # The fault comes with the batch behind the gate, by its first call.
        outcomes = [attempt(nursery, store._writer.call, lambda _db, _now: setattr(first, "fault", fault))]
        await waiting(store._writer, 1)
        outcomes += [attempt(nursery, space.reserve, {"day": None}, 1, id=f"{number}") for number in range(4)]
        outcomes.append(attempt(nursery, space.get, "k"))
        await waiting(store._writer, 6)
        before = first.commits
        gate.open()
    errors = [error for (error,) in outcomes]
    assert all(isinstance(error, StoreError) for error in errors)
    assert len({id(error) for error in errors}) == 6
    assert str(errors[0]) == (
        f"{store._writer._path}: disk I/O error (SQLITE_IOERR_FSYNC); check the disk and the kernel log"
    )
    assert first.commits - before == 2  # the gate's own and theirs, which was not tried again
    assert await space.counter("day") == 0
    assert await space.counter("before") == 1
    assert len(connections) == 2  # a new one, the old is not trusted


async def test_whoever_asked_to_is_told_of_each_call_that_failed(path: Path) -> None:
    told: list[StoreError] = []
    path.mkdir()
    async with Store.at(path, failed=told.append) as store:
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                await store.namespace("one").get("k")
            assert told.pop() is caught.value
        path.rmdir()
        with pytest.raises(UnknownReservation):
            await store.namespace("one").settle("r", 1)
    assert told == []


async def test_what_the_log_holds_is_written_anew_before_anything_is_promised(path: Path) -> None:
    """A sync that failed left pages that are in memory only, and the next sync would not say so."""
    async with await Store.open(path) as old:
        await old.namespace("one").put("k", bytes(100_000))
        log = path.with_name(f"{path.name}-wal")
        assert log.stat().st_size > 100_000
        async with await Store.open(path):
            assert log.stat().st_size == 0


async def test_a_full_disk(store: Store, space: Namespace) -> None:
    def fill(db: sqlite3.Connection, _now: float) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")

    await space.reserve({"day": None}, 5, id="r")
    await store._writer.call(fill)
    assert await space.counter("day") == 5  # reading needs no room
    with pytest.raises(StoreError, match=r"full.*free space"):
        await space.put("big", bytes(100_000))
    # The next call has a connection of its own, and the disk has room again.
    await space.put("big", bytes(100_000))
    assert await space.settle("r", 3) == 3


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_writes_that_the_system_refuses(path: Path, store: Store, space: Namespace) -> None:
    await space.reserve({"day": 100}, 5, id="before")
    with file_size_limit(path.stat().st_size + 200_000):
        with pytest.raises(StoreError):
            await space.put("big", bytes(1_000_000))
        await space.reserve({"day": 100}, 5, id="small")
    await space.reserve({"day": 100}, 5, id="after")
    assert await space.get("big") is None
    assert await space.counter("day") == 15
    await store.close()
    async with await Store.open(path) as store:
        assert await store.namespace("one").counter("day") == 15


async def test_a_file_that_vanished_does_not_come_back_empty(
    connections, path: Path, store: Store, space: Namespace
) -> None:
    await space.add("k", 1)
    for file in list(path.parent.iterdir()):
        file.unlink()
    connections[-1].fault = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(StoreError):
        await space.add("k", 1)
    with pytest.raises(StoreError, match="unable to open"):
        await space.counter("k")
    assert not path.exists()


async def test_a_hung_disk_keeps_nobody(store: Store, space: Namespace, gate: Gate, monkeypatch) -> None:
    monkeypatch.setattr(writer, "WAIT_S", 0.02)
    async with trio.open_nursery() as nursery:
        held = attempt(nursery, store._writer.call, gate._work)
        await gate._entered.wait()
        with pytest.raises(StoreError, match=r"no answer within 0\.02 s"):
            await space.reserve({"day": None}, 5, id="r")
        with pytest.raises(StoreError, match="not closed"):
            await store.close()
    assert isinstance(held[0], StoreError)
    gate.open()
    monkeypatch.setattr(writer, "WAIT_S", 5.0)
    await store.close()


async def test_the_callers_mapping_may_change_meanwhile(store: Store, space: Namespace, gate: Gate) -> None:
    limits = {"day": 10}
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        outcome = attempt(nursery, space.reserve, limits, 6, id="r")
        await waiting(store._writer, 1)
        limits["all"] = 0
        gate.open()
    assert outcome == [{"day": 6}]


async def test_what_nobody_waits_for_is_not_begun(store: Store, space: Namespace, gate: Gate) -> None:
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        with trio.CancelScope() as scope:
            scope.cancel()
            await space.reserve({"day": None}, 5, id="r")
        assert scope.cancelled_caught
        gate.open()
    with pytest.raises(UnknownReservation):
        await space.settle("r", 0)
    assert await space.counter("day") == 0


async def test_cancelled_in_the_commit_the_same_id_again_tells(store: Store, gate: Gate) -> None:
    space = store.namespace("one")

    def slowly(db: sqlite3.Connection, now: float) -> None:
        tables.reserve(db, now, "one", {"day": 10}, 6, "r", "", {})
        gate._work(db, now)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store._writer.call, slowly)
        await gate._entered.wait()
        nursery.cancel_scope.cancel()  # the caller leaves, the commit goes on
    gate.open()
    assert await space.reserve({"day": 10}, 6, id="r") == {"day": 6}
    with pytest.raises(OverLimit):
        await space.reserve({"day": 10}, 6, id="s")


async def test_the_loop_goes_on_while_the_disk_works(store: Store, gate: Gate) -> None:
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        gate.open()


async def test_the_queue_is_bounded(store: Store, space: Namespace, gate: Gate, monkeypatch) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 3)
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        for _ in range(3):
            nursery.start_soon(space.add, "k", 1)
        await waiting(store._writer, 3)
        with pytest.raises(StoreError, match="3 calls wait"):
            await space.add("k", 1)
        gate.open()
    assert await space.counter("k") == 3


async def test_close_finishes_what_waits_and_is_shielded(path: Path, store: Store, gate: Gate) -> None:
    space = store.namespace("one")
    async with trio.open_nursery() as nursery:
        await gate.shut(nursery)
        added = attempt(nursery, space.add, "k", 1)
        await waiting(store._writer, 1)

        async def close() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.close()

        nursery.start_soon(close)
        await waiting(store._writer, 2)
        gate.open()
    assert added == [1]
    assert [found.name for found in path.parent.iterdir()] == [path.name]  # the log is folded in and gone
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await space.add("k", 1)


async def test_a_clock_that_jumps_does_not_end_the_wait(autojump_clock, space: Namespace) -> None:
    for number in range(20):
        assert await space.add("k", 1) == number + 1


async def test_a_store_that_cannot_open_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(StoreError):
        await Store.open(tmp_path)
    for thread in threading.enumerate():
        if thread.name == "rtpipe-store":
            await trio.to_thread.run_sync(thread.join, 5)
    assert threading.active_count() <= before + 1  # trio keeps its own idle thread
