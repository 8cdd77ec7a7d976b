"""``rtpipe forget``: erase what is written of a session."""

import argparse
from urllib.parse import quote

from rtpipe.cli import admin
from rtpipe.daemon.config_files import one_line

NAME = "forget"
HELP = "erase what is written of a session that was to outlive the daemon"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="ID", nargs="+", help="which one; logs and bills name it")
    admin.arguments(parser)
    parser.epilog = (
        "A session in service goes on, and is not written any more: `rtpipe sessions kill ID` ends it. The "
        "store's file keeps its size, and what it held there until something else is written over it, "
        "encrypted as it was."
    )


def run(args: argparse.Namespace) -> int:
    path = admin.socket_of(args)
    for session in args.session:
        told = admin.ask(path, "DELETE", f"/sessions/{quote(session, safe='')}/record")
        print(f"forgotten: {one_line(told['forgotten'])}")
    return 0
