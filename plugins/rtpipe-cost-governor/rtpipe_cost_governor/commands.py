"""``rtpipe costs`` and ``rtpipe limits``: they ask the running daemon."""

import argparse
import csv
import json
import sys
from urllib.parse import urlencode

from rtpipe import Command
from rtpipe_cost_governor.report import LIVE, WAYS

_COLUMNS = ("name", "usd", "uses", "input_tokens", "cached_share", "output_tokens")


def _cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=WAYS, default="principal", help="what to add up by (principal)")
    parser.add_argument("--day", metavar="YYYY-MM-DD", help="another day than today")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print what the daemon answers")
    form.add_argument("--csv", action="store_true", help="print rows for a spreadsheet")


def _costs(args: argparse.Namespace) -> int:
    query = {"by": args.by} | ({"day": args.day} if args.day else {})
    answer = args.ask("GET", f"/costs?{urlencode(query)}")
    rows = [*answer["rows"], answer["total"]]
    if args.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    elif args.csv:
        writer = csv.DictWriter(sys.stdout, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(answer["rows"])
    else:
        _table([_COLUMNS, *([str(row[column]) for column in _COLUMNS] for row in rows)])
        left = answer["unsettled"]
        if left["reservations"]:
            sys.stdout.write(f"not settled: {left['reservations']} reservations, {left['usd']} USD\n")
    return 0


def _table(rows: "list[tuple[str, ...] | list[str]]") -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        sys.stdout.write("  ".join([_printable(first).ljust(widths[0]), *cells]) + "\n")


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def _limit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="its id, as `rtpipe sessions` shows it")
    for name in LIVE:
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="AMOUNT", help="set it for this session")


def _limits(args: argparse.Namespace) -> int:
    query = {name: value for name in LIVE if (value := getattr(args, name)) is not None}
    answer = args.ask("POST", f"/limits?{urlencode({'session': args.session, **query})}")
    sys.stdout.write(
        f"session {answer['session']} of {answer['principal']}: {answer['spent_usd']} USD spent\n"
    )
    for name, value in answer["caps"].items():
        sys.stdout.write(f"  {name} = {value}\n")
    return 0


COMMANDS = [
    Command("costs", "what was spent: today, by principal or otherwise", _cost_arguments, _costs, True),
    Command("limits", "show a live session's limits, or raise them", _limit_arguments, _limits, True),
]
