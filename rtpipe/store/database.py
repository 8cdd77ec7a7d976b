"""The file: made private, opened durable, its version checked."""

import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from rtpipe.api.store import StoreError

SCHEMA_VERSION = 1
BUSY_S = 2.0  # how long SQLite waits for another process's lock
_AGAIN_S = 0.01  # for a checkpoint of another process SQLite does not wait

_SCHEMA = (
    # AUTOINCREMENT: the id of a counter that expired is never given to its successor of the same key, so a
    # reservation made in the old period cannot be settled on the new one.
    """CREATE TABLE counters (
        id INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, key TEXT NOT NULL,
        settled INTEGER NOT NULL, reserved INTEGER NOT NULL, expires_at REAL, UNIQUE (namespace, key))""",
    # counters: a JSON object, key to counters.id. settled: the real amount, NULL while open.
    """CREATE TABLE reservations (
        namespace TEXT NOT NULL, id TEXT NOT NULL, amount INTEGER NOT NULL, counters TEXT NOT NULL,
        note TEXT NOT NULL, made_at REAL NOT NULL, settled INTEGER, expires_at REAL,
        UNIQUE (namespace, id))""",
    """CREATE TABLE records (
        namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, expires_at REAL,
        UNIQUE (namespace, key))""",
    "CREATE INDEX reservations_open ON reservations (namespace, made_at) WHERE settled IS NULL",
    "CREATE INDEX counters_expiry ON counters (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX reservations_expiry ON reservations (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX records_expiry ON records (expires_at) WHERE expires_at IS NOT NULL",
)


def create(path: Path) -> None:
    """Makes the file (mode 0600) and its missing directories (0700), unless they exist; raises OSError."""
    _make_directory(path.parent)
    # Only a new file is opened here: closing a descriptor of a live database would drop SQLite's locks on it.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    _sync_directory(path.parent)


def _make_directory(path: Path) -> None:
    if path.exists():
        return
    _make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """Opens the existing file for the calling thread; raises StoreError, sqlite3.Error.

    Never creates it: a file that vanished under a running store must not come back with all counters at zero.
    """
    uri = f"file:{quote(os.fsencode(path))}?mode=rw"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    # Looked at before anything of it is changed. IMMEDIATE also finds out that it cannot be written.
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            path,
            f"written by a newer rtpipe (schema {version}, known {SCHEMA_VERSION})",
            "upgrade rtpipe",
        )
    if version == 0:
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise StoreError(path, "another program's database", "choose another path for the store")
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")
    if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StoreError(path, "this file system cannot keep a write-ahead log", "use a local disk")
    # FULL: a commit returns when the log is on the disk, not merely with the kernel.
    db.execute("PRAGMA synchronous = FULL")
    _empty_log(db, path)


def _empty_log(db: sqlite3.Connection, path: Path) -> None:
    """Write all of the log anew. Raises StoreError where another process keeps it for ``BUSY_S``.

    What a failed sync left in the log may be nowhere but in memory, and the next sync would call it safe: the
    kernel tells of a lost page once. What is promised behind such a page goes with it when the power does.
    """
    until = time.monotonic() + BUSY_S
    while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > until:
            raise StoreError(path, "another program reads in it without end", "find the other program")
        time.sleep(_AGAIN_S)
