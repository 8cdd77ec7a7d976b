"""The rounds: every relay in turn, in an order that moves on, measured case by case."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.frames import Broken
from benchmarks.load import Load, Outcome, Target
from benchmarks.plan import RATE, Case, Plan
from benchmarks.process import Died, Process, core_busy_s, free_port
from benchmarks.relays import Relay

WARM_SESSIONS = 10
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    outcome: Outcome
    foreign: float
    """Share of the relay's core that others took meanwhile."""

    @property
    def us(self) -> float:
        return 1e6 * self.outcome.relay_cpu_s / max(1, self.outcome.received)

    @property
    def lost(self) -> int:
        return self.outcome.sent - self.outcome.received


@dataclass
class Contender:
    """A relay and what came of it."""

    relay: Relay
    work: Path
    process: Process | None = None
    target: Target | None = None
    trouble: str = ""
    """Why it is not in the race at all."""
    versions: dict[str, str] = field(default_factory=dict)
    measured: dict[str, list[Measurement]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    idle_rss: int = 0
    session_rss: float | None = None

    def start(self, load: Load, core: int | None) -> None:
        """Raises `Died` or `Broken`."""
        self.work.mkdir()
        port = free_port()
        command, env = self.relay.command(port, load.port, self.work)
        self.process = Process(command, env, core, self.work / "log")
        self.process.await_port(port)
        self.target = self.relay.target(port)
        load.open(self.target, 1)
        load.close()

    def good(self, case: Case) -> list[Measurement]:
        return [m for m in self.measured.get(case.name, []) if not m.lost and not m.outcome.saturated]

    def median_us(self, case: Case) -> float | None:
        """None where it cannot be said: it failed, lost events, or saturated in most rounds."""
        rounds, good = self.measured.get(case.name, []), self.good(case)
        if case.name in self.failed or any(m.lost for m in rounds if not m.outcome.saturated):
            return None
        return statistics.median(m.us for m in good) if len(good) * 2 > len(rounds) else None


def race(contenders: Sequence[Contender], load: Load, plan: Plan, core: int | None, say: Say) -> None:
    """Measure those that run."""
    for contender in contenders:
        _memory(contender, load, plan.idle_sessions, say)
        _warm_up(contender, load, plan)
    for number in range(plan.rounds):
        for turn in range(len(contenders)):
            contender = contenders[(number + turn) % len(contenders)]
            for case in plan.cases:
                if contender.process and case.name not in contender.failed:
                    _one(contender, load, plan, case, core, say, number)


def _warm_up(contender: Contender, load: Load, plan: Plan) -> None:
    if contender.process is not None:
        assert contender.target is not None
        try:
            load.open(contender.target, WARM_SESSIONS)
            for way in ("down", "up"):
                load.burst(way, plan.warm_up_s, contender.process.cpu_s)
        except Broken as error:
            contender.failed.update({case.name: str(error) for case in plan.cases})
        finally:
            load.close()


def _one(
    contender: Contender, load: Load, plan: Plan, case: Case, core: int | None, say: Say, number: int
) -> None:
    assert contender.process is not None
    assert contender.target is not None
    name = contender.relay.name
    try:
        contender.process.check()
        load.open(contender.target, case.sessions)
        busy = core_busy_s(core)
        outcome = measure(load, plan, case, contender.process.cpu_s)
        foreign = max(0.0, core_busy_s(core) - busy - outcome.relay_cpu_s) / outcome.wall_s
    except (Broken, Died) as error:
        contender.failed[case.name] = str(error)
        say(f"round {number + 1}: {name}, {case.title}: {error}")
        return
    finally:
        load.close()
    measurement = Measurement(outcome, foreign)
    contender.measured.setdefault(case.name, []).append(measurement)
    what = "saturated" if outcome.saturated else f"{measurement.us:.1f} µs an event"
    lost = f", {measurement.lost} of {outcome.sent} not delivered" if measurement.lost else ""
    say(f"round {number + 1}: {name}, {case.title}: {what}{lost}")


def measure(load: Load, plan: Plan, case: Case, cpu: Callable[[], float]) -> Outcome:
    if case.paced:
        return load.paced(case.way, RATE, plan.paced_s, cpu)
    return load.burst(case.way, plan.burst_s, cpu)


def _memory(contender: Contender, load: Load, sessions: int, say: Say) -> None:
    """RSS without and with idle sessions, before anything else: memory freed earlier would be used again."""
    if contender.process is None or contender.target is None:
        return
    try:
        load.open(contender.target, WARM_SESSIONS)
        load.close()
        contender.idle_rss = contender.process.rss_bytes()
        load.open(contender.target, sessions)
        time.sleep(1)
        contender.session_rss = (contender.process.rss_bytes() - contender.idle_rss) / sessions
    except (Broken, Died) as error:
        say(f"{contender.relay.name}, {sessions} idle sessions: {error}")
    finally:
        load.close()
