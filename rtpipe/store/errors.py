"""What went wrong with the file, in words an operator can act on."""

import errno
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

_TODO_OF_THE_SYSTEM = {
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}


def explain(path: Path, cause: Exception) -> StoreError:
    """A new StoreError for whatever SQLite, the system or we raised about the file at `path`."""
    if isinstance(cause, StoreError):
        return StoreError(cause.path, cause.what, cause.todo)
    if isinstance(cause, OSError):
        return StoreError(path, str(cause), _TODO_OF_THE_SYSTEM.get(cause.errno or 0, _DISK))
    # The low byte is the kind of fault; the rest says which system call met it.
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    name = getattr(cause, "sqlite_errorname", None)
    return StoreError(path, f"{cause} ({name})" if name else str(cause), _TODO.get(code, _DISK))
