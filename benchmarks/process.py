"""A relay's processes: started on one core, their CPU time and memory read, ended."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

START_LIMIT_S = 90.0


class Died(Exception):
    """The relay did not start or did not stay."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Process:
    """A relay and whatever it starts, in a session of their own."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], core: int | None, log: Path) -> None:
        pinned = [*(["taskset", "-c", str(core)] if core is not None else []), *command]
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603
                pinned,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                start_new_session=True,
            )

    def await_port(self, port: int) -> None:
        """Wait until it listens. Raises `Died`."""
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            self.check()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.1)
        raise Died(f"does not listen after {START_LIMIT_S:g} s{self._last_words()}")

    def check(self) -> None:
        """Raises `Died` if it is gone."""
        if self._process.poll() is not None:
            raise Died(f"ended with {self._process.returncode}{self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    def stop(self) -> None:
        """End the whole session it was started in."""
        for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
                return

    def tree(self) -> list[int]:
        """Its process id and those of all descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self._process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_s(self) -> float:
        """User and system time of the tree: what /proc/PID/stat counts, to the nanosecond."""
        return sum(_cpu_clock(pid) for pid in self.tree())

    def rss_bytes(self) -> int:
        pages = 0
        for pid in self.tree():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_clock(pid: int) -> float:
    # clock_getcpuclockid(3), which Python does not have: the scheduler's clock of a whole process.
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def core_busy_s(core: int | None) -> float:
    """How long a core has been busy, with whatever."""
    if core is None:
        return 0.0
    lines = Path("/proc/stat").read_text().splitlines()
    fields = next(line.split()[1:] for line in lines if line.startswith(f"cpu{core} "))
    ticks = [int(field) for field in fields[:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
