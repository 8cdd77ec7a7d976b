import sqlite3

import pytest

from rtpipe.store import MAX_VALUE_BYTES, Namespace, Store, tables


async def test_put_get_replace_delete(space: Namespace) -> None:
    assert await space.get("k") is None
    await space.put("k", b"one")
    await space.put("k", b"\x00\xff")
    assert await space.get("k") == b"\x00\xff"
    await space.delete("k")
    await space.delete("k")
    assert await space.get("k") is None


async def test_a_record_expires_to_the_second(space: Namespace, clock) -> None:
    await space.put("k", b"v", ttl_s=10)
    clock.time += 9.5
    assert await space.get("k") == b"v"
    clock.time += 0.5
    assert await space.get("k") is None
    assert await space.scan("") == {}


async def test_put_sets_the_time_to_live_anew(space: Namespace, clock) -> None:
    await space.put("k", b"v", ttl_s=10)
    await space.put("k", b"w")
    clock.time += 100
    assert await space.get("k") == b"w"


async def test_scan_is_by_prefix_in_key_order(space: Namespace, store: Store) -> None:
    for key in ("b/2", "a", "b/10", "b", "c", "b/\U0010ffff", "b/%_*"):
        await space.put(key, key.encode())
    await store.namespace("two").put("b/3", b"")
    assert list(await space.scan("b/")) == ["b/%_*", "b/10", "b/2", "b/\U0010ffff"]
    assert list(await space.scan("b/", after="b/10")) == ["b/2", "b/\U0010ffff"]
    assert list(await space.scan("", after="b/2")) == ["b/\U0010ffff", "c"]
    assert await space.scan("x") == {}


async def test_scan_answers_in_pieces(space: Namespace, monkeypatch) -> None:
    monkeypatch.setattr(tables, "MAX_LISTED", 3)
    monkeypatch.setattr(tables, "MAX_VALUE_BYTES", 10)
    values = {"a": b"1" * 20, "b": b"2" * 5, "c": b"3" * 5, "d": b"4", "e": b"", "f": b"", "g": b""}
    for key, value in values.items():
        await space.put(key, value)
    pieces = []
    after = ""
    while piece := await space.scan("", after=after):
        pieces.append("".join(piece))
        after = list(piece)[-1]
    assert pieces == ["a", "bc", "def", "g"]


async def test_values_are_bytes_of_bounded_length(space: Namespace) -> None:
    with pytest.raises(ValueError):
        await space.put("k", "text")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        await space.put("k", bytes(MAX_VALUE_BYTES + 1))


async def test_expired_rows_leave_the_file(store: Store, space: Namespace, path, clock, monkeypatch) -> None:
    monkeypatch.setattr(tables, "_SWEEP_ROWS", 2)
    for number in range(5):
        await space.put(f"{number}", b"v", ttl_s=1)
        await space.reserve({f"{number}": None}, 1, id=f"{number}", expires_at={f"{number}": clock.time + 1})
    await space.put("kept", b"v", ttl_s=10_000)
    await space.add("kept", 1)
    clock.time += 3601
    for _ in range(3):  # each call takes some rows with it
        await space.get("kept")
    await store.close()
    db = sqlite3.connect(path)
    counts = [
        db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        for table in ("records", "counters", "reservations")
    ]
    db.close()
    assert counts == [1, 1, 0]


async def test_of_two_that_know_the_same_record_one_swaps_it(space: Namespace, clock) -> None:
    assert await space.swap("k", None, b"one", ttl_s=10)
    assert not await space.swap("k", None, b"other")
    assert [await space.swap("k", b"one", mine, ttl_s=10) for mine in (b"a", b"b")] == [True, False]
    assert await space.get("k") == b"a"
    clock.time += 10  # one that has expired is none
    assert not await space.swap("k", b"a", b"c")
    assert await space.swap("k", None, b"c")
    assert not await space.swap("k", b"a", None)
    assert await space.swap("k", b"c", None)
    assert await space.get("k") is None
