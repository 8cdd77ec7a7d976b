"""What the store makes of the file it is given."""

# ruff: noqa: ASYNC240 - a test may wait for a small file

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rtpipe.store import OverLimit, Store, StoreError, database


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        await Store.open(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


async def test_only_the_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store ?#%.db"
    async with await Store.open(path) as store:
        await store.namespace("one").put("k", b"v")
        assert {mode(found) for found in path.parent.iterdir()} == {0o600}
        assert len(list(path.parent.iterdir())) == 3  # the log and its index too
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o700, 0o700)


async def test_modes_the_operator_chose_stay(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    path = tmp_path / "store.db"
    path.touch(0o640)
    async with await Store.open(path):
        assert (mode(tmp_path), mode(path)) == (0o750, 0o640)


async def test_every_commit_is_synced(store: Store) -> None:
    settings = await store._writer.call(
        lambda db, _now: [
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    )
    assert settings == ["wal", 2]


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    assert "newer rtpipe (schema 2, known 1); upgrade rtpipe" in await refusal(path)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    assert "another program's database" in await refusal(path)
    assert path.read_bytes() == before


async def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    before = path.read_bytes()
    assert "restore the file from a backup" in await refusal(path)
    assert path.read_bytes() == before


async def test_a_damaged_page_is_an_error_not_an_empty_answer(path: Path) -> None:
    async with await Store.open(path) as store:
        space = store.namespace("one")
        for number in range(200):
            await space.put(f"{number:04}", b"v" * 500)
    page = 4096
    with path.open("r+b") as file:
        file.seek(page)
        file.write(b"\xa5" * (path.stat().st_size - page))
    async with await Store.open(path) as store:
        space = store.namespace("one")
        with pytest.raises(StoreError, match=r"malformed.*restore the file from a backup"):
            await space.scan("")
        with pytest.raises(StoreError):
            await space.reserve({"day": 1}, 1, id="r")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so for this long we are somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        Path(name).chmod(0o700)


async def test_a_read_only_directory(locked_directory: Path) -> None:
    locked_directory.chmod(0o555)
    with unprivileged():
        assert "writable for the user" in await refusal(locked_directory / "store.db")
        assert "writable for the user" in await refusal(locked_directory / "new" / "store.db")
    assert list(locked_directory.iterdir()) == []


async def test_a_read_only_file(locked_directory: Path) -> None:
    path = locked_directory / "store.db"
    async with await Store.open(path) as store:
        await store.namespace("one").add("k", 1)
    path.chmod(0o444)
    locked_directory.chmod(0o555)
    with unprivileged():
        assert "writable for the user" in await refusal(path)
    locked_directory.chmod(0o700)
    async with await Store.open(path) as store:
        assert await store.namespace("one").counter("k") == 1


async def test_a_directory_in_its_place(tmp_path: Path) -> None:
    await refusal(tmp_path)


async def test_a_locked_file_is_waited_for_only_so_long(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    async with await Store.open(path) as store:
        space = store.namespace("one")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"locked.*find the other program"):
                await space.add("k", 1)
        assert await space.add("k", 1) == 1


READS = """
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM records").fetchone()
"""
CHECKPOINTS = """
lock = open(sys.argv[1] + "-shm", "r+b")
fcntl.lockf(lock, fcntl.LOCK_EX, 1, 121)  # WAL_CKPT_LOCK of SQLite's wal.c
"""


@contextmanager
def another_process(what: str, path: Path) -> Iterator[Callable[[], object]]:
    """Which has done *what* to the store in that file, and there is something in its log; how to end it."""
    with closing(database.connect(path)) as db:
        db.execute("INSERT INTO records VALUES ('one', 'k', x'01', NULL)")
        script = f"import fcntl, sqlite3, sys{what}print('done', flush=True)\nsys.stdin.read()"
        command = [sys.executable, "-c", script, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            yield process.communicate


def test_a_log_that_another_process_keeps_is_not_built_on(path: Path, monkeypatch) -> None:
    """What it holds cannot be written anew then, so nothing that would stand behind it is promised."""
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    database.create(path)
    with another_process(READS, path) as end:
        with pytest.raises(StoreError, match="another program reads in it without end"):
            database.connect(path)
        end()
        database.connect(path).close()


def test_the_checkpoint_of_another_process_is_waited_for(path: Path, monkeypatch) -> None:
    """SQLite itself does not."""
    database.create(path)
    waited = []
    with another_process(CHECKPOINTS, path) as end:
        monkeypatch.setattr(database.time, "sleep", lambda seconds: waited.append(end()))
        database.connect(path).close()
    assert len(waited) == 1


async def test_two_stores_on_one_file_keep_one_limit(path: Path) -> None:
    async with await Store.open(path) as old, await Store.open(path) as new:
        await old.namespace("one").reserve({"day": 10}, 6, id="r")
        with pytest.raises(OverLimit):
            await new.namespace("one").reserve({"day": 10}, 6, id="s")
        await new.namespace("one").settle("r", 1)
        assert await old.namespace("one").counter("day") == 1
