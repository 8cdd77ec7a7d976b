"""The one thread that touches the file. What waits while it works shares the next commit."""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio

from rtpipe.api.store import StoreError
from rtpipe.store import database, tables
from rtpipe.store.errors import explain

WAIT_S = 5.0  # the bound of every call and of close(): a disk may hang, its callers may not
MAX_WAITING = 10_000
_BATCH = 256
_SWEEP_EVERY_S = 60.0

T = TypeVar("T")
Work = Callable[[sqlite3.Connection, float], T]


@dataclass(slots=True, eq=False)
class _Call:
    work: Work[Any] | None  # None: nobody waits for it any more, so it need not be begun
    now: float
    done: trio.Event = field(default_factory=trio.Event)
    result: Any = None
    error: Exception | None = None


class Writer:
    """Starts its thread at once; the file is opened by the first call. Made inside trio.

    *failed* is told of each call that the file or the disk failed, before its caller is.
    """

    def __init__(
        self, path: Path, now: Callable[[], float], failed: Callable[[StoreError], None] = lambda _: None
    ) -> None:
        self._path = path.absolute()  # the working directory may change before the file is reopened
        self._now = now
        self._failed = failed
        self._token = trio.lowlevel.current_trio_token()
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closing = False
        self._closed = trio.Event()
        # From here on the thread's own.
        self._db: sqlite3.Connection | None = None
        self._created = False
        self._swept_at = float("-inf")
        # A daemon: a hung disk must not keep the process from ending; what was acknowledged is on it.
        threading.Thread(target=self._serve, name="rtpipe-store", daemon=True).start()

    async def call(self, work: Work[T]) -> T:
        """Runs `work(connection, now)` in the next transaction; returns its result once that is on the disk.

        Raises StoreError, or what `work` raised (then its changes alone are undone). Cancelled, it returns at
        once: a call not yet begun is not begun, one in hand may still take effect.
        """
        if self._closing:
            raise StoreError(self._path, "the store is closed", "open it again")
        try:
            return await self._call(work)
        except StoreError as error:
            self._failed(error)
            raise

    async def _call(self, work: Work[T]) -> T:
        if self._queue.qsize() >= MAX_WAITING:
            raise StoreError(self._path, f"{MAX_WAITING} calls wait for it", "check the disk")
        call = _Call(work, self._now())
        self._queue.put(call)
        try:
            finished = await _within(call.done, WAIT_S)
        finally:
            call.work = None
        if not finished:
            raise StoreError(
                self._path, f"no answer within {WAIT_S:g} s", "check the disk and the kernel log"
            )
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    async def close(self) -> None:
        """Finishes what waits, then closes the file. Shielded; raises StoreError when that takes too long."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        with trio.CancelScope(shield=True):
            if not await _within(self._closed, WAIT_S):
                raise StoreError(
                    self._path, f"not closed within {WAIT_S:g} s", "check the disk and the kernel log"
                )

    def _serve(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())  # the only reader: what is there stays there
            going = None not in batch
            if calls := [call for call in batch if call is not None]:
                self._commit(calls)
                self._wake(*(call.done for call in calls))
                self._sweep(calls[-1].now)
        self._drop()
        self._wake(self._closed)

    def _commit(self, calls: list[_Call]) -> None:
        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            for call in calls:
                if (work := call.work) is not None:
                    _perform(db, call, work)
            db.execute("COMMIT")
        except (sqlite3.Error, OSError, StoreError) as cause:
            self._drop()
            for call in calls:
                call.error = explain(self._path, cause)

    def _sweep(self, now: float) -> None:
        # After the answers, in a transaction of its own: a full disk must not fail a mere read.
        if self._db is None or abs(now - self._swept_at) < _SWEEP_EVERY_S:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            more = tables.sweep(self._db, now)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._drop()  # the next call that writes meets the same fault and has someone to tell
        else:
            self._swept_at = float("-inf") if more else now

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            if not self._created:
                database.create(self._path)
            self._db = database.connect(self._path)
            self._created = True
        return self._db

    def _drop(self) -> None:
        """After a failure nothing the connection believes about the file is trusted."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _wake(self, *events: trio.Event) -> None:
        def wake() -> None:
            for event in events:
                event.set()

        with suppress(trio.RunFinishedError):  # the loop is gone, and all who waited with it
            self._token.run_sync_soon(wake)


def _perform(db: sqlite3.Connection, call: _Call, work: Work[Any]) -> None:
    """One call of a batch. What it raises undoes its own changes only; faults of the file are the batch's."""
    db.execute("SAVEPOINT one")
    try:
        call.result = work(db, call.now)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - handed to the caller, who raises it
        call.error = error
        db.execute("ROLLBACK TO one")
    db.execute("RELEASE one")


async def _within(event: trio.Event, seconds: float) -> bool:
    # A disk takes real time: under a test's clock that jumps, the bound must not be over at once.
    until = time.monotonic() + seconds
    while not event.is_set() and (left := until - time.monotonic()) > 0:
        with trio.move_on_after(left):
            await event.wait()
    return event.is_set()
