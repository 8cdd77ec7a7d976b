"""The store as its users see it: namespaces of counters and records."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rtpipe.api.store import Reservation, StoreError
from rtpipe.store import tables
from rtpipe.store.tables import MAX_NAME_BYTES, MAX_VALUE_BYTES
from rtpipe.store.writer import Writer

_NEVER: Mapping[str, float] = {}


class Store:
    """One SQLite file. Made by `open`, ended by `close` or as a context manager."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @classmethod
    def at(
        cls,
        path: str | Path,
        *,
        now: Callable[[], float] = time.time,
        failed: Callable[[StoreError], None] = lambda _: None,
    ) -> Self:
        """The store in that file, which is not touched before somebody uses it; else as ``open``.

        *failed* is told of each call that failed by fault of the file or the disk, before its caller is.
        """
        return cls(Writer(Path(path), now, failed))

    @classmethod
    async def open(cls, path: str | Path, *, now: Callable[[], float] = time.time) -> Self:
        """Opens or creates the file (0600, missing directories 0700). `now` is the wall clock, in seconds.

        Raises StoreError: not writable, damaged, another program's, of a newer schema, locked for over 2 s.
        """
        writer = Writer(Path(path), now)
        try:
            await writer.call(lambda _db, _now: None)
        except BaseException:
            await writer.close()
            raise
        return cls(writer)

    def namespace(self, name: str) -> "Namespace":
        """What is kept under `name`, apart from every other name. Raises ValueError: empty or too long."""
        return Namespace(self._writer, _name(name))

    async def close(self) -> None:
        """Finishes the calls that wait, then closes the file; twice is harmless.

        Shielded from cancellation and bounded: raises StoreError if the disk takes longer than 5 s. What was
        acknowledged is safe without it.
        """
        await self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Namespace:
    """Counters and records of one user of the store.

    Every method returns when its effect is on the disk, or raises StoreError (full or failing disk, damaged
    file, no answer within 5 s) without retrying; the next call finds out whether the store works again. After
    a StoreError or a cancellation the call took effect as a whole or not at all; the docstrings say how to
    find out. Calls take effect in the order they were made. ValueError and TypeError mean a wrong argument.
    """

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer = writer
        self._name = name

    async def counter(self, key: str) -> int:
        """Settled and reserved amounts together; 0 for a counter that does not exist or has expired."""
        _name(key)
        return await self._writer.call(lambda db, now: tables.total(db, now, self._name, key))

    async def add(self, key: str, amount: int, *, expires_at: float | None = None) -> int:
        """Adds a settled amount, which may be negative; returns the counter's new total.

        `expires_at` (wall clock, seconds) is taken when this call makes the counter, and then stands. Raises
        OverflowError past 64 bits. Not idempotent: what may be repeated goes through `reserve` and `settle`.
        """
        _name(key)
        _whole(amount)
        return await self._writer.call(
            lambda db, now: tables.add(db, now, self._name, key, amount, expires_at)
        )

    async def reserve(
        self,
        limits: Mapping[str, int | None],
        amount: int,
        *,
        id: str,
        note: str = "",
        expires_at: Mapping[str, float] = _NEVER,
    ) -> dict[str, int]:
        """Counts `amount` (0 or more) on every key of `limits`, or on none; returns each counter's new total.

        Raises OverLimit for the first key whose total would exceed its limit (None: counted, not limited).
        The reservation counts in full, also after a crash, until it is settled or its counters expire.
        `expires_at` holds the end of a counter's period (wall clock, seconds) for those keys that have one,
        as in `add`. `note` comes back from `unsettled`.

        After a cancellation or StoreError, reserving again with the same arguments is harmless: it counts
        once, and if it already stands no limit is asked again. To give up instead: `settle(id, 0)`, where
        UnknownReservation means it never happened. ValueError: the id is settled, or open with another
        amount or other keys.
        """
        # Copied: the thread reads them later than the caller may change them.
        limits, expires_at = dict(limits), dict(expires_at)
        for name in (id, *limits):
            _name(name)
        for limit in limits.values():
            if limit is not None:
                _whole(limit)
        _whole(amount, at_least=0)
        if not limits or not expires_at.keys() <= limits.keys() or len(note.encode()) > MAX_NAME_BYTES:
            raise ValueError("no keys, an expires_at for a key that is not among them, or too long a note")
        return await self._writer.call(
            lambda db, now: tables.reserve(db, now, self._name, limits, amount, id, note, expires_at)
        )

    async def settle(self, id: str, amount: int) -> int:
        """Replaces the reserved amount by the real one (0 or more, no limit asked) on all its counters.

        Idempotent: the first settlement stands, and every call returns the amount that stands. Raises
        UnknownReservation: never made, or settled an hour ago, or all its counters expired an hour ago.
        """
        _name(id)
        _whole(amount, at_least=0)
        return await self._writer.call(lambda db, now: tables.settle(db, now, self._name, id, amount))

    async def unsettled(self, older_than_s: float = 0.0) -> list[Reservation]:
        """Open reservations made at least so long ago, the oldest first, at most 1,000."""
        return await self._writer.call(lambda db, now: tables.unsettled(db, now, self._name, older_than_s))

    async def put(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keeps `value` (at most 16 MiB) under `key` for `ttl_s` seconds, or for ever; replaces both.

        Idempotent, but that a repeat starts the time anew.
        """
        _name(key)
        _value(key, value)
        await self._writer.call(lambda db, now: tables.put(db, now, self._name, key, value, ttl_s))

    async def swap(
        self, key: str, old: bytes | None, new: bytes | None, *, ttl_s: float | None = None
    ) -> bool:
        """Keeps `new` under `key` if `old` is what stands there; returns whether it was. None: no record.

        Of several callers, in whatever processes, that know the same `old` one succeeds. `ttl_s` is as in
        `put`. To repeat it after a StoreError, look first: False may mean that it had taken effect.
        """
        _name(key)
        if new is not None:
            _value(key, new)
        return await self._writer.call(lambda db, now: tables.swap(db, now, self._name, key, old, new, ttl_s))

    async def get(self, key: str) -> bytes | None:
        """The value, or None if there is none or it has expired."""
        _name(key)
        return await self._writer.call(lambda db, now: tables.get(db, now, self._name, key))

    async def delete(self, key: str) -> None:
        """Removes the record if there is one. Idempotent."""
        _name(key)
        await self._writer.call(lambda db, now: tables.delete(db, now, self._name, key))

    async def scan(self, prefix: str, *, after: str = "") -> dict[str, bytes]:
        """Living records whose keys start with `prefix` and come after `after`, in key order.

        At most 1,000 of them and 16 MiB in all, but at least one if there is one: go on with `after` = the
        last key until the answer is empty.
        """
        return await self._writer.call(lambda db, now: tables.scan(db, now, self._name, prefix, after))


def _name(text: str) -> str:
    if not 0 < len(text.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {len(text.encode())}")
    return text


def _value(key: str, value: bytes) -> None:
    if not isinstance(value, bytes) or len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"{key}: a value is bytes, at most {MAX_VALUE_BYTES} of them")


def _whole(amount: int, at_least: int | None = None) -> None:
    # A float would be stored as one, and money would round.
    if type(amount) is not int:
        raise TypeError(f"amounts are whole numbers, not {amount!r}")
    if at_least is not None and amount < at_least:
        raise ValueError(f"an amount of {amount} is less than {at_least}")
