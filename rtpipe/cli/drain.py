"""``rtpipe drain``: have the running daemon end once its answers in progress are finished."""

import argparse

from rtpipe.cli import admin

NAME = "drain"
HELP = "have the running daemon finish the answers in progress, and end"


def arguments(parser: argparse.ArgumentParser) -> None:
    admin.arguments(parser)
    parser.epilog = "The same as SIGTERM. It returns at once; `rtpipe sessions` shows who is still there."


def run(args: argparse.Namespace) -> int:
    told = admin.ask(admin.socket_of(args), "POST", "/drain")
    print(f"draining: {told['sessions']} sessions in service")
    return 0
