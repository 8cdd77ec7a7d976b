"""kill -9 in the middle of writing: nothing acknowledged is lost, nothing is understated."""

import importlib.util
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from rtpipe.store import Store

CHILD = Path(__file__).with_name("crash_child.py")
spec = importlib.util.spec_from_file_location("crash_child", CHILD)
assert spec is not None
assert spec.loader is not None
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)

ROUNDS = 15


def acknowledged_until_killed(path: Path, name: str, lines: int) -> dict[str, set[str]]:
    """Runs the child, kills it after so many answers; all the ids it had told of, by what was done."""
    told: dict[str, set[str]] = {"reserved": set(), "settled": set(), "put": set()}
    command = [sys.executable, str(CHILD), str(path), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):  # goes on after the kill, to what was still in the pipe
            done, id = line.split()
            told[done].add(id)
            if count == lines:
                process.kill()
    assert process.returncode == -9
    return told


def number(id: str) -> int:
    return int(id.split(":")[1])


async def test_killed_while_writing(path: Path) -> None:
    chance = random.Random(7)
    spent = 0
    settled_late = 0
    for round in range(ROUNDS):
        told = acknowledged_until_killed(path, f"round{round}", chance.randrange(200))
        async with await Store.open(path) as store:
            space = store.namespace("one")
            open = {found.id: found for found in await space.unsettled()}

            # What was settled is not open. What was reserved is open in full, or settled before the kill.
            assert not open.keys() & told["settled"]
            assert all(found.amount == child.reserved(number(id)) for id, found in open.items())
            unheard = told["reserved"] - told["settled"] - open.keys()
            assert len(unheard) <= child.TASKS
            for id in unheard:
                assert await space.settle(id, 0) == child.real(number(id))
            closed = sum(child.real(number(id)) for id in told["settled"] | unheard)
            standing = spent + closed + sum(found.amount for found in open.values())
            assert await space.counter("day") == await space.counter("all") == standing

            for id in told["put"]:
                assert await space.get(id) == id.encode() * 50

            for id in open:
                await space.settle(id, child.real(number(id)))
            settled_late += len(open)
            spent += closed + sum(child.real(number(id)) for id in open)
            assert await space.counter("day") == await space.counter("all") == spent
    assert settled_late > ROUNDS
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
