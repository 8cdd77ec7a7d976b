"""Runs a client twice, with rtpipe and without, and compares what the model heard."""

import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from tests.clients.compare import View, cut, first_difference, lock_unmarked, lock_waits
from tests.clients.replay import replayed
from tests.clients.rows import Row
from tests.clients.scene import Place, Scene

LIMIT_S = 120

Run = Callable[[Place], Awaitable[str]]
"""Has the client do its turns at a place; what it reported."""


@dataclass(frozen=True)
class Turn:
    """One turn, in a session of its own."""

    name: str
    views: tuple[View, ...] = ()
    """What is known to differ, left out; the rest is compared in full."""
    reaches_model: bool = True
    """Else rtpipe refuses it, and whether the model would is no matter."""


TURNS = (
    Turn("text"),
    Turn("audio"),
    Turn("heard audio"),
    Turn("image"),
    Turn("tool"),
    Turn("interruption", (cut,)),
    Turn("error"),
)
CROSSING = Turn("crossing", (lock_waits,))
"""Two creates at once, of a client that does not see to it itself that there is one at a time."""


def viewed(*views: View, **turns: View) -> list[Turn]:
    """The common turns with views of one client: for all of them, and for those that are named."""
    more = {name.replace("_", " "): (view,) for name, view in turns.items()}
    return [replace(turn, views=(*views, *turn.views, *more.get(turn.name, ()))) for turn in TURNS]


async def compared(row: Row, scene: Scene, turns: Sequence[Turn], run: Run) -> Row:
    """Fill the row: a turn is ok if it succeeds at both places and was the same for the model.

    What the model logged of the second run must be a transcript that rtpipe follows.
    """
    names = [turn.name for turn in turns]
    reaching = [turn for turn in turns if turn.reaches_model]
    direct = Row(row.client, row.version, row.transport)
    report = await run(scene.model)
    direct.read(report, names, f"not reached: {report[-1500:]}")
    without = await scene.recorder.take()
    scene.log.lines()
    report = await run(scene.gateway)
    row.read(report, names, f"not reached: {report[-1500:]}")
    through = await scene.recorder.take()
    if why := await replayed(scene.log.lines(), len(through)):
        row.fail("replay", why)
    for turn in reaching:
        if why := direct.failed.get(turn.name):
            row.fail(turn.name, f"without rtpipe: {why}")
    if row.failed:
        return row
    if not len(without) == len(through) == len(reaching):
        row.fail("all", f"{len(reaching)} sessions: directly {len(without)}, through rtpipe {len(through)}")
        return row
    for turn, ours, theirs in zip(reaching, without, through, strict=True):
        if difference := first_difference(ours, theirs, lock_unmarked, *turn.views):
            row.fail(turn.name, difference)
    return row


async def program(
    command: Sequence[str | Path], text: str, folder: Path, variables: Mapping[str, str]
) -> str:
    """What a program says that reads *text* from its stdin, until it ends or its time is over."""
    said: list[bytes] = []
    with trio.move_on_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(_started, command, text, folder, variables)
            async for data in process.stdout:
                said.append(data)  # noqa: PERF401 what came before the time was over counts
            await process.wait()
    return b"".join(said).decode()


async def _started(
    command: Sequence[str | Path],
    text: str,
    folder: Path,
    variables: Mapping[str, str],
    task_status: trio.TaskStatus[trio.Process],
) -> None:
    await trio.run_process(
        command,
        stdin=text.encode(),
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        task_status=task_status,
    )
