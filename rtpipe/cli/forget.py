"""``rtpipe forget``: erase what is written of a session or a caller."""

import argparse
from urllib.parse import urlencode

from rtpipe.cli import admin
from rtpipe.daemon.config_files import one_line

NAME = "forget"
HELP = "erase what is written of a session, or of a caller"

LIMIT_S = 120.0
"""There may be much of it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a session, by its id, or a caller, by its principal")
    admin.arguments(parser)
    parser.epilog = (
        "Sessions in service go on, and are not written any more; `rtpipe sessions kill ID` ends one. What a "
        "log file, an audit log or a recording says stays there."
    )


def run(args: argparse.Namespace) -> int:
    query = urlencode({"name": args.name})
    for line in admin.ask(admin.socket_of(args), "POST", f"/forget?{query}", LIMIT_S)["forgotten"]:
        print(f"forgotten: {one_line(line)}")
    return 0
