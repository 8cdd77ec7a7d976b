"""A disk that is full, that cannot write, that is read-only, under a daemon that keeps the books on it."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.daemon.kit import Process, bearer, client, config, started
from tests.daemon.wire import WAIT_S, WebSocket, get, knock
from tests.faults.books import CAPS, Billing, billing, failures, judge, turn
from tests.faults.machine import NotHereError, inside, namespaces, need, run

SIZE = "512k"


@dataclass
class Disk:
    """A small disk that is seen by one daemon alone. *root* is where it is seen from outside."""

    file: Path
    root: Path
    launcher: list[str]
    model: Billing


@asynccontextmanager
async def disk(options: str = "") -> AsyncIterator[Disk]:
    with tempfile.TemporaryDirectory() as folder:
        state, file = Path(folder) / "state", Path(folder) / "rtpipe.toml"
        state.mkdir()
        mount = f"mount -t tmpfs -o size={SIZE}{options} none {state}"
        async with namespaces("mount", mount) as holder, billing() as model:
            text = config(
                state, model.url, chain=("auth", "cost-governor"), listen="metrics = true", more=CAPS
            )
            file.write_text(text)
            root = Path(f"/proc/{holder}/root{state}")
            yield Disk(file, root, inside(holder, "mount"), model)


@asynccontextmanager
async def serving(disk: Disk) -> AsyncIterator[Process]:
    """Ends with 0 and without a complaint; then the books are right."""
    async with started(disk.file, launcher=disk.launcher) as gateway:
        await gateway.said(" with chain ")
        yield gateway
        gateway.signal()
        assert await gateway.exited() == 0, gateway.err
    assert "Traceback" not in gateway.err, gateway.err


async def full() -> str:
    async with disk() as it:
        async with serving(it) as gateway, client(gateway.address) as app, client(gateway.address) as other:
            assert await turn(app) == "completed"
            before = await _until_it_fails(gateway, app, it.root / "filler")
            seen = await _refused_and_alarmed(gateway)
            (it.root / "filler").unlink()
            assert await turn(other) == "completed"
            assert await _new(gateway) == "completed"
        found = judge(it.root, it.model.bills)
    return f"{before}; {seen}; with room again new and old sessions are served; {found}"


async def _until_it_fails(gateway: Process, app: WebSocket, filler: Path) -> str:
    """Fill the disk to the last byte before each turn, until something could not be written down."""
    with trio.fail_after(WAIT_S):
        while not await failures(gateway):
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1024))
            said = await turn(app)
    return f"in a full disk: {said}"


async def _refused_and_alarmed(gateway: Process) -> str:
    """One line, whatever comes."""
    for _ in range(3):
        await _new(gateway)
    assert (await get(gateway.address, "/readyz")).status == 200
    alarms = gateway.err.count("alert store_failed by host: ")
    assert alarms == 1, gateway.err
    return f"{await failures(gateway)} failures counted, one alert"


async def _new(gateway: Process) -> str:
    """What a new session is told, or who would open one."""
    answer = await knock(gateway.address, "/v1/realtime", bearer())
    if not isinstance(answer, WebSocket):
        return f"{answer.status} {answer.error['code']}"
    try:
        return await turn(answer)
    finally:
        await trio.aclose_forcefully(answer.stream)


async def read_only() -> str:
    """From the start; and later, as a kernel does it that has met errors."""
    need("strace")
    async with disk(",ro") as it:
        async with started(it.file, launcher=it.launcher) as gateway:
            assert await gateway.exited() == 1
        last = gateway.log[-1]
        assert last.startswith("rtpipe: plugin auth does not start: ")
        assert "make the file and its directory writable" in last
        await run(*it.launcher, "mount", "-o", "remount,rw", str(it.file.parent / "state"))
        seen = await _while_failing(it, "pwrite64", "EROFS")
    return f"does not start on one, and says so in a line; {seen}"


async def failing_sync() -> str:
    """The kernel says EIO to every sync for a while."""
    need("strace")
    async with disk() as it:
        return await _while_failing(it, "fsync,fdatasync", "EIO")


async def _while_failing(it: Disk, calls: str, error: str) -> str:
    """What becomes of sessions while the kernel fails these system calls, and thereafter."""
    async with serving(it) as gateway, client(gateway.address) as app, client(gateway.address) as other:
        assert await turn(app) == "completed"
        async with _injected(gateway, calls, error) as told:
            said = await turn(app)
            assert said != "completed"
            seen = await _refused_and_alarmed(gateway)
            failed = told.read_text("utf-8").count("(INJECTED)")
        assert failed
        assert await turn(other) == "completed"
        assert await _new(gateway) == "completed"
    return f"{failed} times {error}: {said}; {seen}; then served again; {judge(it.root, it.model.bills)}"


@asynccontextmanager
async def _injected(gateway: Process, calls: str, error: str) -> AsyncIterator[Path]:
    """Have the kernel fail these calls of the daemon, whose names are then in the file.

    Raises ``NotHereError`` where one process may not trace another.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "strace"
        pid = str(gateway.process.pid)
        inject = f"--inject={calls}:error={error}"
        command = [
            "strace",
            "--follow-forks",
            f"--trace={calls}",
            inject,
            f"--output={told}",
            f"--attach={pid}",
        ]
        process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        try:
            with trio.fail_after(WAIT_S):
                said = await process.stderr.receive_some()
            if b" attached" not in said:
                raise NotHereError(f"strace: {said.decode().strip()}")
            yield told
        finally:
            process.send_signal(signal.SIGINT)  # lets go of the daemon, which a kill might not
            with trio.CancelScope(shield=True):
                await process.stderr.aclose()
                await process.wait()
