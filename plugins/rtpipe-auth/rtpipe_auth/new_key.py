"""``rtpipe keys new ID``: make a key. Nothing is written to disk."""

import argparse
import hashlib
import secrets
import sys

from rtpipe import Command
from rtpipe_auth.config import checked_id


def _id(text: str) -> str:
    try:
        return checked_id(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="new", required=True)
    new = verbs.add_parser("new", help="print a new key once, and the lines that let it in")
    new.add_argument("key_id", metavar="ID", type=_id, help="the caller's name, for instance kiosk")


def _run(arguments: argparse.Namespace) -> int:
    key = "rtp_sk_" + secrets.token_urlsafe(32)
    # The key alone is the output, so that it can be piped into a secret store; the rest is for people.
    sys.stdout.write(f"{key}\n")
    sys.stdout.flush()
    sys.stderr.write(
        "\nThis is the only time the key is shown: give it to the caller. The gateway needs only its hash;\n"
        "paste these lines into its configuration, and run `rtpipe reload`:\n\n"
        "[[plugins.auth.keys]]\n"
        f'id = "{arguments.key_id}"\n'
        f'sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
    )
    return 0


KEYS = Command(name="keys", help="make keys for callers", arguments=_arguments, run=_run)
