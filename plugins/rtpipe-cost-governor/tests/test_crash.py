"""kill -9 in the middle of keeping the books: what was spent is never understated, nothing counts twice.

``python test_crash.py 200`` kills as often; the tests do it a few times.
"""

# ruff: noqa: T201

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import trio

from rtpipe.testing import Store
from rtpipe_cost_governor.bill import Bill
from rtpipe_cost_governor.books import Books, Periods, Reserved, counter_keys, entry_for
from rtpipe_cost_governor.savings import NOTHING

ROUNDS = 5
TASKS = 8
AT = 1_800_000_000.0
STAGE = "cost-governor"
PERIODS = Periods("UTC")


async def spend(path: str, name: str) -> None:
    """Reserve, be billed, write down and settle, many at a time, telling of each, until killed."""
    async with Store.at(path) as store, trio.open_nursery() as nursery:
        books = Books(store.namespace(STAGE), PERIODS, 30)
        books.now = lambda: AT  # type: ignore[method-assign]
        for task in range(TASKS):
            nursery.start_soon(_spend, books, f"{name}-{task}")


def tell(what: str, id: str, cost: int) -> None:
    """One write, which a kill does not cut in two."""
    os.write(1, f"{what} {id} {cost}\n".encode())


async def _spend(books: Books, name: str) -> None:
    caps = counter_keys("usd", PERIODS, name, "kiosk", {}, 4_000_000_000.0)
    number = 0
    while True:
        number += 1
        reserved = Reserved(
            id=f"{name}:{number}", micro_usd=1000, tokens=1, output_tokens=1, caps=caps, token_caps=()
        )
        await books.reserve(reserved)
        cost = number * 7919 % 1001
        # From here on the upstream may send a bill, and this is it.
        tell("billed", reserved.id, cost)
        bill = Bill(usage=NOTHING, micro_usd=cost, parts={"text_in": cost})
        entry = entry_for(
            bill, at=AT, principal="kiosk", session=name, model="m", kind="response", status="x", cycle=""
        )
        await books.write(reserved.id, entry)
        await books.settle(reserved, cost, 0)
        tell("settled", reserved.id, cost)


def killed(path: Path, name: str, lines: int) -> dict[str, dict[str, int]]:
    """What a process told until it was killed, after so many lines."""
    told: dict[str, dict[str, int]] = {"billed": {}, "settled": {}}
    command = [sys.executable, __file__, "--spend", str(path), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):  # and on, to what was still in the pipe
            what, id, cost = line.split()
            told[what][id] = int(cost)
            if count == lines:
                process.kill()
    assert process.returncode == -9
    return told


async def crash(rounds: int, seed: int = 7) -> tuple[int, int]:
    """Kill so often; returns how many bills there were, and how many were left unsettled."""
    chance = random.Random(seed)  # noqa: S311
    billed: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite3"
        left = uncounted = 0
        for number in range(rounds):
            told = killed(path, f"round{number}", chance.randrange(120))
            billed |= told["billed"]
            async with Store.at(path) as store:
                space = store.namespace(STAGE)
                books = Books(space, PERIODS, 30)
                entries = {key.split(":", 2)[2]: entry async for key, entry in books.entries("")}
                unsettled = await space.unsettled()
                standing = await space.counter(
                    counter_keys("usd", PERIODS, "", "kiosk", {}, 4_000_000_000.0)[1].key
                )
            # What nobody told of had not come back from the disk when the process died.
            open_ids = {each.id for each in unsettled}
            spent = sum(billed.values())
            assert standing >= spent, "understated"
            assert standing - spent <= sum(each.amount for each in unsettled), "counted twice"
            assert not open_ids & told["settled"].keys()
            assert all(entries[id].micro_usd == cost for id, cost in told["settled"].items())
            in_report = sum(entry.micro_usd for entry in entries.values())
            in_report += sum(each.amount for each in unsettled if each.id not in entries)
            assert in_report + uncounted >= spent
            async with Store.at(path) as store:
                for each in unsettled:  # as nobody would; but a list of them has an end
                    cost = billed.setdefault(each.id, each.amount)
                    await store.namespace(STAGE).settle(each.id, cost)
                    if each.id not in entries:
                        uncounted += cost
            left += len(unsettled)
    return len(billed), left


async def test_killed_while_keeping_the_books() -> None:
    billed, left = await crash(ROUNDS)
    assert billed > ROUNDS
    assert left


if __name__ == "__main__":
    if sys.argv[1] == "--spend":
        trio.run(spend, *sys.argv[2:])
    else:
        times = int(sys.argv[1])
        count, open_ones = trio.run(crash, times)
        print(f"killed {times} times, {count} bills: none understated, none counted twice")
        print(f"{open_ones} reservations were left open by the kills")
