"""Cuts long calls of unmodified clients at every event boundary: ``python -m tests.survival --all``.

Without ``--all`` at some of them, spread over the call. Exits with 1 if a call did not go on as it should.
"""

import argparse
import sys

import trio

from tests.survival.calls import cut_everywhere
from tests.survival.outcomes import failed, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.survival")
    parser.add_argument("--all", action="store_true", help="at every boundary, not only at some")
    parser.add_argument("--client", action="append", help="only this one (again for another)")
    parser.add_argument("--spread", type=int, default=6, help="how many boundaries of each leg without --all")
    arguments = parser.parse_args()
    outcomes = trio.run(cut_everywhere, None if arguments.all else arguments.spread, arguments.client)
    sys.stdout.write(table(outcomes))
    return 1 if failed(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
