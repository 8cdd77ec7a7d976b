"""``make soak``: storms of attacks for an hour, or for so many seconds. What stays of each in the daemon, and
what 50 well-behaved sessions notice of it, beside the same sessions a moment later without.

The daemon is alone on one core; the well-behaved sessions and the attackers are a process each on another,
the attackers with the lowest priority, lest one measures how long the clients waited for the core.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from resource import getpagesize
from statistics import median, quantiles

from benchmarks.load import Target
from benchmarks.process import Process, free_port
from tests.daemon.kit import KEY, KEY_VARIABLE, MODEL, UPSTREAM_KEY, config
from tests.faults import storms
from tests.faults.steady import RATE, Steady

ROOT = Path(__file__).parents[2]
SESSIONS = 50
STORM_S = 3.0
"""How long a storm lasts, and the quiet after it, where there is time enough."""
SHORTEST_S = 0.5
PARTS = 6
"""Into so many a storm's share of the time is divided: one is the storm, one the quiet after it."""
SETTLE_S = 30.0
CALM_S = 10.0
"""After which nothing is left of a short storm: sessions wait for clients, and closing takes a while."""
MORE = {
    "memory": 64e6,
    "descriptors": 4,
    "tasks": 4,
    "sessions": 0,
    "connections": 1,
    "waiting": 0,
    "rows": 0,
}
"""How much more there may be after a storm than before: asking takes a connection."""
FIRST_ROUND_BYTES = 96_000_000
"""And this much more memory after the first storms: what a process has used once, as for messages of 16 MiB,
it keeps for the next time."""


@dataclass
class Gateway:
    """The daemon: how it is asked what it has."""

    pid: int
    port: int
    folder: Path

    def left(self) -> dict[str, int]:
        """What it has now. It counts its tasks once a second."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()

        def value(name: str) -> int:
            found = re.findall(rf"(?m)^{re.escape(name)} (\S+)$", text)
            return sum(int(float(each)) for each in found)

        return {
            "memory": int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * getpagesize(),
            "descriptors": len(os.listdir(f"/proc/{self.pid}/fd")),
            "tasks": value('rtpipe_used{what="tasks"}'),
            "sessions": value("rtpipe_sessions"),
            "connections": value("rtpipe_connections"),
            "waiting": value("rtpipe_held_bytes") + value("rtpipe_reassembly_bytes"),
            "rows": self.rows(),
        }

    def rows(self) -> int:
        """Of all tables in its store."""
        total = 0
        for file in (self.folder / "state").glob("*.db"):
            with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as store:
                for (table,) in store.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                ).fetchall():
                    total += store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        return total


class Attackers:
    """The process of those who attack."""

    def __init__(self, core: int | None) -> None:
        command = [*_pinned(core), "nice", "-n", "19", sys.executable, "-m", "tests.faults.storms"]
        self._process = subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._line()

    def tell(self, *what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def done(self) -> dict[str, int]:
        """What the storm that is over came to."""
        return json.loads(self._line())

    @property
    def raging(self) -> bool:
        return not select.select([self._process.stdout], [], [], 0)[0]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the attackers are gone"
        return line.strip()


@dataclass
class Seen:
    """How long deltas took, in seconds, and what was done meanwhile."""

    stormy: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)


def soak(seconds: float, names: list[str]) -> bool:
    """Whether everything was as before after each of these storms; prints what it saw."""
    length = min(STORM_S, max(SHORTEST_S, seconds / len(names) / PARTS))
    with _everything() as (gateway, attackers, steady):
        for name in names:  # once each: what is loaded at first use is no leak
            attackers.tell(name, SHORTEST_S)
            steady.times(lambda: attackers.raging)
            attackers.done()
        steady.times(_for(CALM_S))
        before = gateway.left()
        _say(f"before: {_told(before)}")
        seen = {name: Seen() for name in names}
        before["memory"] += FIRST_ROUND_BYTES
        good, began, number = True, time.monotonic(), 0
        while time.monotonic() - began < seconds or not number:
            number += 1
            for name, what in seen.items():
                attackers.tell(name, length)
                what.stormy += steady.times(lambda: attackers.raging)
                for each, often in attackers.done().items():
                    what.done[each] = what.done.get(each, 0) + often
                after = _settle(gateway, steady, before)
                if not _back(before, after):
                    good = False
                    _say(f"  {name} LEFT BEHIND: {_told(after)}")
                what.quiet += steady.times(_for(length))
            if number == 1:
                before["memory"] = after["memory"]
            _say(f"after {number} rounds, {time.monotonic() - began:.0f} s: {_told(after)}")
        _report(seen)
        log = (gateway.folder / "log").read_text("utf-8", "replace")
        if "Traceback" in log or "internal error" in log:
            good = False
            _say(log[log.find("Traceback") :][:4000])
    return good


def _settle(gateway: Gateway, steady: Steady, before: dict[str, int]) -> dict[str, int]:
    until = time.monotonic() + SETTLE_S
    while not _back(before, after := gateway.left()) and time.monotonic() < until:
        steady.times(_for(0.25))
    return after


def _back(before: dict[str, int], after: dict[str, int]) -> bool:
    return all(after[what] <= before[what] + more for what, more in MORE.items())


def _told(left: dict[str, int]) -> str:
    return ", ".join(
        f"{count / 1e6:.0f} MB" if what == "memory" else f"{count} {what}" for what, count in left.items()
    )


def _for(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until


def _report(seen: dict[str, Seen]) -> None:
    _say(f"\n{SESSIONS} sessions, {RATE:g} deltas of 6.6 kB a second each: ms from the model to the client")
    _say(f"{'':26}{'during the storm':>27}{'a moment after':>27}{'added':>9}")
    _say(f"{'':26}{('%9s' * 7) % (*('p50', 'p99', 'max') * 2, 'p99')}  what was done")
    everything = Seen()
    for name, what in seen.items():
        everything.stormy += what.stormy
        everything.quiet += what.quiet
        done = ", ".join(f"{often} {each}" for each, often in sorted(what.done.items()))
        _say(_row(name, what), done)
    _say(_row("all", everything))


def _row(name: str, what: Seen) -> str:
    stormy, quiet = _spread(what.stormy), _spread(what.quiet)
    cells = "".join(f"{value * 1e3:9.2f}" for value in (*stormy, *quiet))
    return f"{name:26}{cells}{(stormy[1] - quiet[1]) * 1e3:9.2f} "


def _spread(times: list[float]) -> tuple[float, float, float]:
    return median(times), quantiles(times, n=100)[98], max(times)


@contextmanager
def _everything() -> Iterator[tuple[Gateway, Attackers, Steady]]:
    cores = sorted(os.sched_getaffinity(0))
    daemon_core, other = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    if other is not None:
        os.sched_setaffinity(0, {other})
    with tempfile.TemporaryDirectory() as name:
        folder, steady, attackers = Path(name), Steady(), Attackers(other)
        port = free_port()
        file = configure(folder, port, f"ws://127.0.0.1:{steady.port}/v1/realtime", attackers.url)
        command = [sys.executable, "-m", "rtpipe.cli.main", "run", "--config", str(file)]
        process = Process(command, {KEY_VARIABLE: UPSTREAM_KEY}, daemon_core, folder / "log")
        try:
            process.await_port(port)
            attackers.tell(*places(folder, port))
            headers = {"Authorization": f"Bearer {KEY}"}
            steady.begin(Target("127.0.0.1", port, f"/v1/realtime?model={MODEL}", headers), SESSIONS)
            yield Gateway(process.tree()[0], port, folder), attackers, steady
        except BaseException:
            _say(process.log.read_text()[-3000:])
            raise
        finally:
            attackers.stop()
            steady.close()
            process.stop()


def places(folder: Path, port: int) -> tuple[int, str, str, str]:
    """Where attackers find the daemon: its port, its sockets, and what they rewrite before a reload."""
    return port, f"{folder}/rtpipe.sock", f"{folder}/admin.sock", f"{folder}/conf.d/90.toml"


def configure(folder: Path, port: int, model: str, hostile: str) -> Path:
    """Write its configuration: the upstream of the well-behaved and that of the attackers."""
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "90.toml").touch()
    text = config(
        folder / "state",
        model,
        chain=("auth", "image-compressor", "response-lock", "cost-governor"),
        listen="metrics = true",
        more=f"""
[[plugins.auth.keys]]
id = "attackers"
sha256 = "{hashlib.sha256(storms.KEY.encode()).hexdigest()}"

[[listen]]
address = "unix:{folder}/rtpipe.sock"

[[upstream]]
name = "hostile"
kind = "sim"
url = "{hostile}"
default_model = "{storms.MODEL}"

[admin]
socket = "{folder}/admin.sock"

[limits]
handshake_timeout_s = 1
connect_timeout_s = 2
write_deadline_s = 1

[session]
outage_s = 2
resume_window_s = 2
""",
    )
    file = folder / "rtpipe.toml"
    file.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    return file


def _say(*words: str) -> None:
    print(*words, flush=True)  # noqa: T201


def _pinned(core: int | None) -> list[str]:
    return ["taskset", "-c", str(core)] if core is not None else []


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped on the way out
    sys.exit(0 if soak(float(sys.argv[1]), sys.argv[2:] or list(storms.STORMS)) else 1)
