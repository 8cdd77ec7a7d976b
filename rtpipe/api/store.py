"""What a plugin can keep: atomic counters with reserve and settle, and records with a time to live."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reservation:
    """An open reservation: `amount` counts on each of `keys` until it is settled. `made_at` is wall-clock."""

    id: str
    amount: int
    keys: tuple[str, ...]
    note: str
    made_at: float


class StoreError(Exception):
    """The store cannot do its work; the text is one line: where, what, what to do.

    Whether the failed call took effect is not known: a commit that the disk refused may still be found
    after a restart. Never in doubt is the other side: what returned without an error is on the disk.
    """

    def __init__(self, path: Path, what: str, todo: str) -> None:
        super().__init__(f"{path}: {what}; {todo}")
        self.path = path
        self.what = what
        self.todo = todo


class OverLimit(Exception):
    """A reservation would carry a counter past its limit; nothing was reserved on any counter."""

    def __init__(self, key: str, limit: int, total: int, amount: int) -> None:
        super().__init__(f"{key}: {total} + {amount} is over the limit of {limit}")
        self.key = key
        self.limit = limit
        self.total = total
        self.amount = amount


class UnknownReservation(LookupError):
    """No reservation has this id: it was never made, or it is settled and forgotten (an hour later)."""

    def __init__(self, id: str) -> None:
        super().__init__(f"no reservation {id!r}")
        self.id = id


class Store(Protocol):
    """One stage's namespace. Amounts are whole numbers (micro-dollars, tokens); values are bytes.

    Every call returns when its effect is on the disk, or raises ``StoreError``. The rules for repeating a
    call after a cancellation or an error stand with the implementation, ``rtpipe.store.Namespace``.
    """

    async def counter(self, key: str) -> int:
        """Settled and reserved amounts together; 0 for a counter that does not exist or has expired."""
        ...

    async def add(self, key: str, amount: int, *, expires_at: float | None = None) -> int:
        """Add a settled amount, which may be negative; returns the new total."""
        ...

    async def reserve(
        self,
        limits: Mapping[str, int | None],
        amount: int,
        *,
        id: str,
        note: str = "",
        expires_at: Mapping[str, float] = ...,
    ) -> dict[str, int]:
        """Count *amount* on every key, or on none; raises ``OverLimit``. Returns the new totals."""
        ...

    async def settle(self, id: str, amount: int) -> int:
        """Replace the reserved amount by the real one; the first settlement stands and is returned."""
        ...

    async def unsettled(self, older_than_s: float = 0.0) -> list[Reservation]:
        """Open reservations, the oldest first."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keep a record for *ttl_s* seconds, or for ever."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The record, or None if there is none or it has expired."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a record if there is one."""
        ...

    async def scan(self, prefix: str, *, after: str = "") -> dict[str, bytes]:
        """Living records by prefix, in key order and in bounded pieces: go on with the last key."""
        ...
