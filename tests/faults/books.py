"""A daemon that keeps the books, and whether they are right: its ledger beside what the model billed."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import trio

from rtpipe.sim import SimOptions, serve
from rtpipe_cost_governor.bill import bill_for
from rtpipe_cost_governor.prices import Table
from tests.daemon.kit import MODEL, PATH, Process
from tests.daemon.wire import Ended, WebSocket, get

CAPS = """
[plugins.cost-governor.caps]
budget_usd = "1000"
day_budget_usd = "1000"
"""
"""Budgets that are asked for and never met."""


@dataclass
class Billing:
    """A simulated model, and the bills it sent: micro-dollars by response."""

    url: str = ""
    bills: dict[str, int] = field(default_factory=dict)
    _price = Table({}, {}).price(MODEL, "sim")

    def heard(self, line: str) -> None:
        event = msgspec.json.decode(line).get("event", {})
        if event.get("type") == "response.done":
            bill = bill_for(event, self._price, self._price)
            assert bill is not None
            self.bills[event["response"]["id"]] = bill.micro_usd


@asynccontextmanager
async def billing() -> AsyncIterator[Billing]:
    """Never waits."""
    model = Billing()
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(serve, SimOptions(pace=0, log=model.heard)))
        model.url = f"ws://{host}:{port}{PATH}"
        yield model
        nursery.cancel_scope.cancel()


async def turn(app: WebSocket, text: str = "Good morning.") -> str:
    """Ask, and wait for what becomes of it: the answer's status, an error's message, or the close code."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    try:
        await app.tell("conversation.item.create", item=item)
        await app.tell("response.create", response={"output_modalities": ["text"]})
        while (event := await app.event())["type"] not in ("response.done", "error"):
            pass
    except Ended as ended:
        return str(ended.code)
    except trio.BrokenResourceError:
        return "reset"
    return str(event["response"]["status"] if event["type"] == "response.done" else event["error"]["message"])


def judge(state: Path, bills: dict[str, int]) -> str:
    """Whether the ledger there understates the bills or counts any twice. The daemon has ended."""
    # A copy, for SQLite follows links, and those to another process's files lead nowhere.
    with tempfile.TemporaryDirectory() as folder:
        for file in state.glob("store.sqlite3*"):
            shutil.copy(file, folder)
        return _judged(Path(folder) / "store.sqlite3", bills)


def _judged(store: Path, bills: dict[str, int]) -> str:
    with closing(sqlite3.connect(store)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        # Of everybody, on whatever days this ran.
        counted = "SELECT sum(settled), sum(reserved) FROM counters WHERE key GLOB 'usd:????-??-??'"
        settled, reserved = (each or 0 for each in db.execute(counted).fetchone())
    spent = sum(bills.values())
    assert settled + reserved >= spent, f"understated: {settled} + {reserved} of {spent}"
    assert settled <= spent, f"counted twice: {settled} of {spent}"
    return f"{len(bills)} bills of {spent} micro-dollars: {settled} settled, {reserved} still reserved"


async def failures(gateway: Process) -> int:
    """What the metric says."""
    lines = (await get(gateway.address, "/metrics")).rest.decode().splitlines()
    (found,) = (line for line in lines if line.startswith("rtpipe_store_failures_total "))
    return int(float(found.split()[1]))
