"""``make faults``: each fault done to a daemon, and a table of what was expected and what was seen."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from functools import partial
from pathlib import Path

import trio

from tests.daemon.kit import config, running, scripted
from tests.faults.cases import CONFIG, Scene
from tests.faults.machine import why_not_here
from tests.faults.table import ROWS, Row

ROOT = Path(__file__).parents[2]
CASE_S = 60.0
WIDTHS = (44, 40, 48)


async def _main() -> int:
    _print("case", "expected", "seen")
    failed = 0
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rtpipe.toml"
        async with scripted() as model:
            file.write_text(config(Path(folder) / "state", model.url, listen="metrics = true", more=CONFIG))
            async with running(file) as gateway:
                for row in ROWS:
                    good, seen, missing = await _see(row, Scene(gateway, model))
                    left_out += [f"{row.case}: {why}" for why in missing]
                    failed += not good
                    _print(row.case, row.expected, seen if good else f"FAILED: {seen}")
    summary = f"{len(ROWS)} cases, {failed} failed, {len(left_out)} not or not wholly seen"
    print("\n  ".join([summary, *left_out]))  # noqa: T201
    return 1 if failed else 0


async def _see(row: Row, scene: Scene) -> tuple[bool, str, list[str]]:
    """Whether it was as expected, what was seen, and what was not, with the reason."""
    good, seen = True, []
    missing = [f"not here: {row.missing}"] if row.missing else []
    cases = [row.live and partial(row.live, scene), row.apart]
    for case in filter(None, cases):
        try:
            with trio.fail_after(CASE_S):
                seen.append(await case())
        except Exception as exc:
            if why := why_not_here(exc):
                missing.append(f"not on this machine: {why}")
            else:
                good = False
                seen.append(f"{type(exc).__name__}: {exc}"[:200])
    if row.tests:
        passed, said = await trio.to_thread.run_sync(_pytest, row.tests)
        good &= passed
        seen.append(said)
        if "skipped" in said:
            missing.append(said)
    return good, "; ".join([*seen, *(f"({why})" for why in missing)]), missing


def _pytest(tests: tuple[str, ...]) -> tuple[bool, str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    counts = Counter({".": 0, "F": 0, "E": 0, "s": 0})
    for line in re.findall(r"(?m)^([.FEs]+) +\[", done.stdout):
        counts.update(line)
    words = {".": "passed", "F": "failed", "E": "broken", "s": "skipped"}
    said = ", ".join(f"{counts[mark]} {word}" for mark, word in words.items() if counts[mark])
    said = said or done.stdout[-200:] + done.stderr[-200:]
    return done.returncode == 0, "; ".join([f"tests: {said}", *re.findall(r"(?m)^FAILED (\S+)", done.stdout)])


def _print(*cells: str) -> None:
    columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
    for number in range(max(map(len, columns))):
        line = [column[number] if number < len(column) else "" for column in columns]
        print(" | ".join(f"{cell:{width}}" for cell, width in zip(line, WIDTHS, strict=True)).rstrip())  # noqa: T201
    print("-" * (sum(WIDTHS) + 6), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(trio.run(_main))
