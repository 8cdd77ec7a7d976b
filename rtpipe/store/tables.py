"""What each call does to the tables. Runs in the writer's thread, inside the transaction it began.

Sums are made in Python: SQLite would turn an overflowing one into a float, Python refuses to store it.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from rtpipe.api.store import OverLimit, Reservation, UnknownReservation

MAX_NAME_BYTES = 512  # of a namespace, a key, an id or a note, as UTF-8
MAX_VALUE_BYTES = 16 * 1024 * 1024
SETTLED_KEPT_S = 3600.0  # how long a settled id is known, so that a repeated settle is harmless
MAX_LISTED = 1000  # rows of one answer
_SWEEP_ROWS = 500  # of each table at once, so that a sweep never keeps a call waiting long


@dataclass(slots=True)
class _Counter:
    id: int
    settled: int
    reserved: int
    expires_at: float | None


def total(db: sqlite3.Connection, now: float, namespace: str, key: str) -> int:
    row = db.execute(
        "SELECT settled, reserved FROM counters WHERE namespace = ? AND key = ?"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (namespace, key, now),
    ).fetchone()
    return row[0] + row[1] if row else 0


def _obtain(
    db: sqlite3.Connection, now: float, namespace: str, key: str, expires_at: float | None
) -> _Counter:
    """The living counter of that key; a new one if there is none, or its period is over."""
    db.execute(
        "DELETE FROM counters WHERE namespace = ? AND key = ? AND expires_at <= ?", (namespace, key, now)
    )
    db.execute(
        "INSERT INTO counters (namespace, key, settled, reserved, expires_at) VALUES (?, ?, 0, 0, ?)"
        " ON CONFLICT DO NOTHING",
        (namespace, key, expires_at),
    )
    found = db.execute(
        "SELECT id, settled, reserved, expires_at FROM counters WHERE namespace = ? AND key = ?",
        (namespace, key),
    )
    return _Counter(*found.fetchone())


def _write(db: sqlite3.Connection, counter: _Counter) -> None:
    db.execute(
        "UPDATE counters SET settled = ?, reserved = ? WHERE id = ?",
        (counter.settled, counter.reserved, counter.id),
    )


def add(
    db: sqlite3.Connection, now: float, namespace: str, key: str, amount: int, expires_at: float | None
) -> int:
    counter = _obtain(db, now, namespace, key, expires_at)
    counter.settled += amount
    _write(db, counter)
    return counter.settled + counter.reserved


def _find(
    db: sqlite3.Connection, now: float, namespace: str, id: str
) -> tuple[int, dict[str, int], int | None] | None:
    """The reserved amount, the counters (key to id), and the settled amount or None while it is open."""
    row = db.execute(
        "SELECT amount, counters, settled FROM reservations WHERE namespace = ? AND id = ?"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (namespace, id, now),
    ).fetchone()
    return (row[0], json.loads(row[1]), row[2]) if row else None


def reserve(
    db: sqlite3.Connection,
    now: float,
    namespace: str,
    limits: Mapping[str, int | None],
    amount: int,
    id: str,
    note: str,
    expires_at: Mapping[str, float],
) -> dict[str, int]:
    if (known := _find(db, now, namespace, id)) is not None:
        reserved, ids, settled = known
        if settled is not None or reserved != amount or ids.keys() != limits.keys():
            state = "settled" if settled is not None else "open with another amount or other keys"
            raise ValueError(f"reservation {id!r} is {state}: an id stands for one reservation")
        return {key: total(db, now, namespace, key) for key in limits}

    counters = {key: _obtain(db, now, namespace, key, expires_at.get(key)) for key in limits}
    for key, counter in counters.items():
        limit, standing = limits[key], counter.settled + counter.reserved
        if limit is not None and standing + amount > limit:
            raise OverLimit(key, limit, standing, amount)
    for counter in counters.values():
        counter.reserved += amount
        _write(db, counter)
    # An open reservation is forgotten when the last of its counters is, so one on an endless counter never.
    ends = [counter.expires_at for counter in counters.values() if counter.expires_at is not None]
    forget_at = max(ends) + SETTLED_KEPT_S if len(ends) == len(counters) else None
    db.execute(
        "INSERT OR REPLACE INTO reservations (namespace, id, amount, counters, note, made_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (namespace, id, amount, json.dumps({k: c.id for k, c in counters.items()}), note, now, forget_at),
    )
    return {key: counter.settled + counter.reserved for key, counter in counters.items()}


def settle(db: sqlite3.Connection, now: float, namespace: str, id: str, amount: int) -> int:
    if (known := _find(db, now, namespace, id)) is None:
        raise UnknownReservation(id)
    reserved, ids, settled = known
    if settled is not None:
        return settled
    for counter_id in ids.values():
        found = db.execute(
            "SELECT id, settled, reserved, expires_at FROM counters WHERE id = ?", (counter_id,)
        ).fetchone()
        if found is not None:  # else its period is over and nobody counts it any more
            counter = _Counter(*found)
            counter.settled += amount
            counter.reserved -= reserved
            _write(db, counter)
    db.execute(
        "UPDATE reservations SET settled = ?, expires_at = ? WHERE namespace = ? AND id = ?",
        (amount, now + SETTLED_KEPT_S, namespace, id),
    )
    return amount


def unsettled(db: sqlite3.Connection, now: float, namespace: str, older_than_s: float) -> list[Reservation]:
    rows = db.execute(
        "SELECT id, amount, counters, note, made_at FROM reservations"
        " WHERE namespace = ? AND settled IS NULL AND made_at <= ? AND (expires_at IS NULL OR expires_at > ?)"
        " ORDER BY made_at, id LIMIT ?",
        (namespace, now - older_than_s, now, MAX_LISTED),
    )
    return [
        Reservation(id, amount, tuple(json.loads(counters)), note, made_at)
        for id, amount, counters, note, made_at in rows
    ]


def put(
    db: sqlite3.Connection, now: float, namespace: str, key: str, value: bytes, ttl_s: float | None
) -> None:
    db.execute(
        "INSERT INTO records (namespace, key, value, expires_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
        (namespace, key, value, None if ttl_s is None else now + ttl_s),
    )


def get(db: sqlite3.Connection, now: float, namespace: str, key: str) -> bytes | None:
    row = db.execute(
        "SELECT value FROM records WHERE namespace = ? AND key = ?"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (namespace, key, now),
    ).fetchone()
    return row[0] if row else None


def swap(
    db: sqlite3.Connection,
    now: float,
    namespace: str,
    key: str,
    old: bytes | None,
    new: bytes | None,
    ttl_s: float | None,
) -> bool:
    if get(db, now, namespace, key) != old:
        return False
    if new is None:
        delete(db, now, namespace, key)
    else:
        put(db, now, namespace, key, new, ttl_s)
    return True


def delete(db: sqlite3.Connection, _now: float, namespace: str, key: str) -> None:
    db.execute("DELETE FROM records WHERE namespace = ? AND key = ?", (namespace, key))


def scan(db: sqlite3.Connection, now: float, namespace: str, prefix: str, after: str) -> dict[str, bytes]:
    rows = db.execute(
        "SELECT key, value FROM records WHERE namespace = ? AND key >= ? AND key > ?"
        " AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?",
        (namespace, prefix, after, now, MAX_LISTED),
    )
    found: dict[str, bytes] = {}
    size = 0
    for (
        key,
        value,
    ) in rows:  # read one by one: keys of one prefix stand together, so the first other key ends it
        size += len(value)
        if not key.startswith(prefix) or (found and size > MAX_VALUE_BYTES):
            break
        found[key] = value
    return found


def sweep(db: sqlite3.Connection, now: float) -> bool:
    """Removes expired rows, some of each table; True when more may be left."""
    removed = [
        db.execute(
            f"DELETE FROM {table} WHERE rowid IN"  # noqa: S608 - the names are ours
            f" (SELECT rowid FROM {table} WHERE expires_at <= ? LIMIT {_SWEEP_ROWS})",
            (now,),
        ).rowcount
        for table in ("counters", "reservations", "records")
    ]
    return _SWEEP_ROWS in removed
