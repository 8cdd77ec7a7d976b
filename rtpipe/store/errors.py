"""What went wrong with the file, in words an operator can act on."""

import sqlite3
from pathlib import Path

from rtpipe.api.store import StoreError

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
