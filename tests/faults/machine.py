"""What this machine lends to a fault: namespaces and programs. Where it does not, a case says why."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from tests.daemon.wire import WAIT_S


class NotHereError(Exception):
    """This machine cannot show the case; the text says why."""


def why_not_here(exc: Exception) -> str:
    """What a ``NotHereError`` says that *exc* is, or a group of it alone; empty where it is another fault."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return str(exc) if isinstance(exc, NotHereError) else ""


def need(*programs: str) -> None:
    """Raises ``NotHereError`` where one of them is missing."""
    for program in programs:
        if shutil.which(program) is None:
            raise NotHereError(f"there is no {program}")


@asynccontextmanager
async def namespaces(kinds: str, setup: str, within: Sequence[str] = ()) -> AsyncIterator[int]:
    """The id of a process in new namespaces (``"mount"``, ``"net"``) in which *setup*, lines of sh, has run.

    They are gone when it is, and it goes when the test does. *within* is what ``inside`` says of a process
    whose user namespace they are to belong to. Raises ``NotHereError`` where one may not.
    """
    need("unshare", "nsenter")
    user = [] if within else ["--map-root-user"]
    new = [f"--{kind}" for kind in kinds.split()]
    script = f"set -e\n{setup}\necho ready\nexec cat"
    command = [*within, "unshare", *user, *new, "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = await trio.lowlevel.open_process(command, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdin, process.stdout, process.stderr:
        try:
            with trio.fail_after(WAIT_S):
                if not await process.stdout.receive_some():
                    why = (await process.stderr.receive_some()).decode().strip()
                    raise NotHereError(f"no {kinds} namespace: {why}")
            yield process.pid
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def inside(holder: int, kinds: str) -> list[str]:
    """The beginning of a command that runs the rest of it in the namespaces of that process."""
    return [
        "nsenter",
        f"--target={holder}",
        "--user",
        "--preserve-credentials",
        *(f"--{k}" for k in kinds.split()),
    ]


async def run(*command: str) -> str:
    """What it says; raises ``CalledProcessError`` when it fails."""
    with trio.fail_after(WAIT_S):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    return str(done.stdout.decode())
