"""``rtpipe reload``: have the running daemon read its configuration again."""

import argparse

from rtpipe.cli import admin
from rtpipe.cli.output import complain

NAME = "reload"
HELP = "have the running daemon read its configuration again, for new sessions"

LIMIT_S = 120.0
"""Plugins may take a while to start."""


def arguments(parser: argparse.ArgumentParser) -> None:
    admin.arguments(parser)
    parser.epilog = "A mistake changes nothing. Sessions keep the chain they began with."


def run(args: argparse.Namespace) -> int:
    report = admin.ask(admin.socket_of(args), "POST", "/reload", LIMIT_S)
    for warning in report["warnings"]:
        complain(f"warning: {warning}")
    for line in told(report):
        print(line)
    return 0


def told(report: admin.Json) -> list[str]:
    """What a reload did, in a few lines."""
    diff = [f"  {line}" for line in report["diff"]]
    lines = ["reloaded:", *diff] if diff else ["reloaded: nothing has changed"]
    if report["new_plugins"]:
        lines.append(f"new plugins: {', '.join(report['new_plugins'])}")
    if report["at_next_start"]:
        lines.append(f"from the next start on: {', '.join(report['at_next_start'])}")
    if count := report["sessions_on_old_chain"]:
        lines.append(
            f"{count} session{'s keep' if count > 1 else ' keeps'} the chain before this until the end"
        )
    return lines
