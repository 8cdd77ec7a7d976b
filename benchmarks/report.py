"""What is printed and what is written: numbers with the conditions they were taken under."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.load import Outcome
from benchmarks.plan import GOALS, RATE, Case, Goal, Plan
from benchmarks.rounds import Contender


def conditions(plan: Plan, cores: tuple[int, int] | None) -> list[str]:
    pinned = f"relay on core {cores[0]}, generator and upstream on core {cores[1]}" if cores else "not pinned"
    return [
        f"date        {time.strftime('%Y-%m-%d %H:%M %Z')}",
        f"machine     {cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}; {pinned}",
        f"generator   Python {platform.python_version()}",
        f"rounds      {plan.rounds}, bursts of {plan.burst_s:g} s, paced for {plan.paced_s:g} s at {RATE:g} "
        "events a second and session, 6.4 kB of audio an event",
        f"load before {load_average()}",
    ]


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load_average() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def ceiling(plan: Plan, outcomes: Mapping[str, Outcome]) -> list[str]:
    """What generator and upstream do without a relay."""
    lines = ["generator and upstream alone, no relay between them:"]
    for case in plan.cases:
        outcome = outcomes[case.name]
        lines.append(
            f"  {case.title:<12} {outcome.received / outcome.wall_s:9,.0f} events/s, "
            f"{1e6 * outcome.own_cpu_s / max(1, outcome.received):5.1f} µs of its core an event, "
            f"late by {1000 * outcome.behind_s:.1f} ms at most, {outcome.sent - outcome.received} lost"
        )
    return lines


def table(contenders: Sequence[Contender], plan: Plan) -> list[str]:
    """CPU µs per relayed event: median (least-most of the rounds, share of its core)."""
    heads = ["relay", *(case.title for case in plan.cases), "idle session"]
    rows = [[c.relay.name, *(_cell(c, case) for case in plan.cases), _memory(c)] for c in contenders]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
             for row in [heads, *rows]]  # fmt: skip
    return [*lines, *(note for contender in contenders for note in _notes(contender))]


def _cell(contender: Contender, case: Case) -> str:
    if contender.trouble:
        return "skipped"
    if case.name in contender.failed:
        return "failed"
    measured, good = contender.measured.get(case.name, []), contender.good(case)
    median = contender.median_us(case)
    if median is None:
        lost = any(m.lost for m in measured if not m.outcome.saturated)
        return "loses events" if lost else "saturates"
    busy = sum(m.outcome.relay_cpu_s for m in good) / sum(m.outcome.wall_s for m in good)
    some = f", {len(measured) - len(good)} saturated" if len(good) < len(measured) else ""
    least, most = min(m.us for m in good), max(m.us for m in good)
    return f"{median:.1f} ({least:.1f}-{most:.1f}, {busy:.0%}{some})"


def _memory(contender: Contender) -> str:
    if contender.session_rss is None:
        return "-"
    return f"{contender.session_rss / 1024:.0f} KiB over {contender.idle_rss / 2**20:.0f} MiB"


def _notes(contender: Contender) -> list[str]:
    name, lines = contender.relay.name, []
    if contender.trouble:
        lines.append(f"{name}: skipped: {contender.trouble}")
    lines += [f"{name}: {case}: {why}" for case, why in contender.failed.items()]
    rounds = [m for measured in contender.measured.values() for m in measured]
    lost = sum(m.lost for m in rounds if not m.outcome.saturated)
    if rounds:
        alike = all(m.outcome.same_size for m in rounds if not m.lost)
        foreign = sum(m.foreign * m.outcome.wall_s for m in rounds) / sum(m.outcome.wall_s for m in rounds)
        lines.append(
            f"{name}: {sum(m.outcome.received for m in rounds):,} events relayed, {lost} lost, "
            f"{'each as long as it was sent' if alike else 'some written anew, of another length'}; "
            f"others took {foreign:.0%} of its core"
        )
    versions = ", ".join(f"{what} {version}" for what, version in contender.versions.items())
    return [*lines, *([f"{name}: {versions}"] if versions else [])]


def goals(contenders: Sequence[Contender], plan: Plan) -> list[str]:
    """Each aim with what was reached."""
    by_name = {contender.relay.name: contender for contender in contenders}
    if "rtpipe" not in by_name:
        return []
    return [
        f"aim: {goal.sentence}: {case.title}: {_reached(goal, case, by_name)}"
        for goal in GOALS
        for case in plan.cases
        if case.name in goal.cases and goal.other in by_name
    ]


def _reached(goal: Goal, case: Case, by_name: Mapping[str, Contender]) -> str:
    ours, theirs = by_name["rtpipe"].median_us(case), by_name[goal.other].median_us(case)
    if ours is None or theirs is None:
        return f"cannot be said, no number of {'rtpipe' if ours is None else goal.other}"
    factor = f"{theirs / ours:.2f}x its events per core-second" if goal.at_most <= 0.1 else ""
    factor = factor or f"{ours / theirs:.2f}x its CPU"
    return f"{factor}: {'reached' if ours / theirs <= goal.at_most else 'NOT reached'}"


def as_json(
    contenders: Sequence[Contender], plan: Plan, alone: Mapping[str, Outcome], told: Sequence[str]
) -> dict[str, object]:
    """Everything, round by round."""
    return {
        "conditions": list(told),
        "alone_events_per_s": {name: outcome.received / outcome.wall_s for name, outcome in alone.items()},
        "relays": {c.relay.name: _relay_json(c, plan) for c in contenders},
        "aims": goals(contenders, plan),
    }


def _relay_json(contender: Contender, plan: Plan) -> dict[str, object]:
    return {
        "skipped": contender.trouble or None,
        "versions": contender.versions,
        "idle_rss_bytes": contender.idle_rss,
        "session_rss_bytes": contender.session_rss,
        "failed": contender.failed,
        "cpu_us_per_event": {case.name: contender.median_us(case) for case in plan.cases},
        "rounds": {
            name: [
                {
                    "cpu_us_per_event": m.us,
                    "sent": m.outcome.sent,
                    "received": m.outcome.received,
                    "same_size": m.outcome.same_size,
                    "wall_s": m.outcome.wall_s,
                    "relay_cpu_s": m.outcome.relay_cpu_s,
                    "generator_cpu_s": m.outcome.own_cpu_s,
                    "generator_late_s": m.outcome.behind_s,
                    "saturated": m.outcome.saturated,
                    "others_on_core": m.foreign,
                }
                for m in measured
            ]
            for name, measured in contender.measured.items()
        },
    }
