"""What a store raises."""

import sqlite3
from pathlib import Path

_FULL = "free space on that disk"
_DENIED = "make the file and its directory writable for the user rtpipe runs as"
_DAMAGED = "stop rtpipe and restore the file from a backup; moving it away starts every counter at zero"
_HELD = "find the other program that keeps it locked"
_DISK = "check the disk and the kernel log"

_TODO = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_CANTOPEN: _DENIED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
}


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


def explain(path: Path, cause: Exception) -> StoreError:
    """A new StoreError for whatever SQLite, the system or we raised about the file at `path`."""
    if isinstance(cause, StoreError):
        return StoreError(cause.path, cause.what, cause.todo)
    if isinstance(cause, PermissionError):
        return StoreError(path, str(cause), _DENIED)
    # The low byte is the kind of fault; the rest says which system call met it.
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    name = getattr(cause, "sqlite_errorname", None)
    return StoreError(path, f"{cause} ({name})" if name else str(cause), _TODO.get(code, _DISK))
