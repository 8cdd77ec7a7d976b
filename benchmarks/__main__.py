"""``python -m benchmarks``: relays side by side. README.md beside this file tells what the numbers mean."""

import argparse
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.frames import Broken
from benchmarks.load import Load, Outcome, Target
from benchmarks.plan import QUICK, Plan
from benchmarks.process import Died
from benchmarks.relays import ALL, Relay, Unavailable
from benchmarks.rounds import Contender, measure, race

QUICK_RELAYS = ("rtpipe", "aiohttp")
FILES = 8192


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the relays are ended, too
    plan = QUICK if args.quick else Plan()
    if args.rounds:
        plan = replace(plan, rounds=args.rounds)
    names = args.relay or (QUICK_RELAYS if args.quick else [relay.name for relay in ALL])
    cores = _pin(required=not args.quick)
    _raise_files_limit()
    told = report.conditions(plan, cores)
    print("\n".join(told), flush=True)
    load = Load()
    gc.freeze()
    alone = _alone(load, plan)
    print("\n".join(report.ceiling(plan, alone)), flush=True)
    core = cores[0] if cores else None
    with _running([r for r in ALL if r.name in names], load, core, args) as contenders:
        race(contenders, load, plan, core, _progress)
    told.append(f"load after  {report.load_average()}")
    print(f"{told[-1]}\n\nCPU µs per relayed event: median (least-most of the rounds, share of its core)")
    print("\n".join([*report.table(contenders, plan), ""]))
    if not args.quick:
        print("\n".join(report.goals(contenders, plan)))
    if args.json:
        args.json.write_text(json.dumps(report.as_json(contenders, plan, alone, told), indent=2) + "\n")
    return 1 if any(_has_failed(contender) for contender in contenders) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Relays side by side.")
    parser.add_argument(
        "--quick", action="store_true", help="seconds, rtpipe and aiohttp only: does it work?"
    )
    parser.add_argument(
        "--relay",
        action="append",
        choices=[relay.name for relay in ALL],
        help="only this one; may be given several times",
    )
    parser.add_argument("--rounds", type=int, choices=range(1, 101), metavar="N", help="how many rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there, too")
    parser.add_argument(
        "--no-install", action="store_true", help="skip relays that are not there instead of installing them"
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtpipe-bench"
    parser.add_argument("--cache", type=Path, default=cache, help="where relays live (default: %(default)s)")
    return parser.parse_args()


def _pin(*, required: bool) -> tuple[int, int] | None:
    """This process to the first core it may use; returns the relay's and its own."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2 or shutil.which("taskset") is None:
        if required:
            sys.exit("benchmarks: needs two cores and taskset: on one, relay and load measure each other")
        return None
    os.sched_setaffinity(0, {allowed[0]})
    return allowed[-1], allowed[0]


def _raise_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _alone(load: Load, plan: Plan) -> dict[str, Outcome]:
    target = Target("127.0.0.1", load.port, "/v1/realtime", {})
    outcomes = {}
    for case in plan.cases:
        load.open(target, case.sessions)
        outcomes[case.name] = measure(load, plan, case, lambda: 0.0)
        load.close()
    return outcomes


@contextmanager
def _running(
    relays: Sequence[type[Relay]], load: Load, core: int | None, args: argparse.Namespace
) -> Iterator[list[Contender]]:
    """The relays, started where they can be."""
    contenders: list[Contender] = []
    with tempfile.TemporaryDirectory(prefix="rtpipe-bench-") as work:
        try:
            for kind in relays:
                contender = Contender(kind(), Path(work) / kind.name)
                contenders.append(contender)
                _start(contender, load, core, args)
            yield contenders
        finally:
            for contender in contenders:
                if contender.process is not None:
                    contender.process.stop()


def _start(contender: Contender, load: Load, core: int | None, args: argparse.Namespace) -> None:
    _progress(f"starting {contender.relay.name}")
    try:
        contender.relay.prepare(args.cache, install=not args.no_install)
        contender.versions.update(contender.relay.versions())
    except Unavailable as error:
        contender.trouble = str(error)
        return
    try:
        contender.start(load, core)
    except (Broken, Died, OSError) as error:
        contender.trouble = f"does not start: {error}"
        load.close()
        if contender.process is not None:
            contender.process.stop()
            contender.process = None


def _has_failed(contender: Contender) -> bool:
    """Only rtpipe must work for this program to succeed."""
    if contender.relay.name != "rtpipe":
        return False
    lost = any(m.lost and not m.outcome.saturated for ms in contender.measured.values() for m in ms)
    return bool(contender.trouble or contender.failed or lost)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
