"""``rtpipe keys``: make a key, and take one away from those who use it now."""

import argparse
import hashlib
import secrets
import sys
from urllib.parse import urlencode

from rtpipe import Command
from rtpipe_auth.config import checked_id

REVOKE: str = "/keys/revoke"
"""The admin route, behind the name of the stage."""


def _id(text: str) -> str:
    try:
        return checked_id(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "verb",
        choices=("new", "revoke"),
        help="new: print a key once, and the lines that let it in; revoke: refuse a caller's keys at once "
        "and for good, and end what they opened",
    )
    parser.add_argument("key_id", metavar="ID", type=_id, help="the caller's name, for instance kiosk")
    parser.add_argument(
        "--sha256",
        metavar="HEX",
        default="",
        help="revoke: only the key whose hash begins so, where there are several",
    )
    parser.add_argument(
        "--stage", default="auth", help="revoke: the stage of the chain that knows the key (default: auth)"
    )


def _run(arguments: argparse.Namespace) -> int:
    return _new(arguments) if arguments.verb == "new" else _revoke(arguments)


def _new(arguments: argparse.Namespace) -> int:
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


def _revoke(arguments: argparse.Namespace) -> int:
    query = urlencode({"id": arguments.key_id, "sha256": arguments.sha256})
    answer = arguments.ask("POST", f"/{arguments.stage}{REVOKE}?{query}")
    for digest in answer["revoked"]:
        sys.stdout.write(f"revoked the key of {arguments.key_id} whose sha256 begins with {digest}\n")
    sys.stdout.write("Its entry in the configuration may go; `rtpipe keys new` makes another key.\n")
    return 0


KEYS = Command(
    name="keys", help="make keys for callers, revoke them", arguments=_arguments, run=_run, asks_daemon=True
)
"""The verb."""
