"""``rtpipe tail``: what happens in the running daemon, as it happens."""

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from rtpipe.api.errors import ConfigError
from rtpipe.api.facts import SessionClosed
from rtpipe.cli import admin
from rtpipe.cli.output import complain
from rtpipe.daemon.config_files import one_line
from rtpipe.protocol.catalogue import UPSTREAM, Client

NAME = "tail"
HELP = "show events and facts of the running daemon as they happen"

_SHOWN_CHARACTERS = 300
_CLOSED = SessionClosed.__name__


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", nargs="?", help="show this one alone, until it ends")
    parser.add_argument(
        "--types",
        metavar="TYPE",
        nargs="+",
        help="event types to show; one that ends in * stands for all that begin so (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, nothing left out")
    admin.arguments(parser)
    parser.epilog = "Deltas and audio are shown by type and size. Ends with Ctrl-C."


def run(args: argparse.Namespace) -> int:
    path = admin.socket_of(args)
    hello = {"type": "rtpipe.hello", "role": "tap", "session": args.session, "types": args.types}
    for line in admin.watch(path, hello):
        message = _read(line, path)
        match message["type"]:
            case "rtpipe.welcome":
                continue
            case "rtpipe.refused":
                raise ConfigError(one_line(message["message"]))
            case "rtpipe.closed":
                complain(f"the daemon ended this: {message['code']} {message['reason']}")
                return 1
        # Ends of lines, terminals' commands and all else that does not print is escaped in JSON of ASCII.
        print(json.dumps(message) if args.json else told(message, len(line)), flush=True)
        if args.session is not None and message.get("fact") == _CLOSED:
            return 0
    complain("the daemon is gone")
    return 1


def _read(line: bytes, path: Path) -> dict[str, Any]:
    try:
        message = json.loads(line)
        if isinstance(message, dict) and isinstance(message.get("type"), str):
            return message
    except ValueError:
        pass
    raise admin.nothing_of_ours(path)


def told(message: dict[str, Any], size: int) -> str:
    """One message of the daemon's, as a printable line; *size* is its bytes."""
    now = datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    match message:
        case {"type": "rtpipe.event", "session": session, "direction": direction, "event": event}:
            way = "→" if direction == UPSTREAM else "←"
            text = f"{now} {session} {way} {_event(event, size)}"
        case {"type": "rtpipe.fact", "fact": fact, "fields": fields}:
            session = fields.pop("session", "") or "-"
            told = " ".join(f"{key}={_plain(value)}" for key, value in fields.items())
            text = f"{now} {session} ● {fact} {told}"
        case {"type": "rtpipe.missed", "count": count}:
            text = f"{now} ({count} lines were missed here)"
        case _:
            text = f"{now} {_plain(message)}"
    return one_line(text)


def _event(event: Any, size: int) -> str:
    kind = str(event.get("type", "?")) if isinstance(event, dict) else "?"
    if kind.endswith(".delta") or kind == Client.AUDIO_APPEND:
        return f"{kind} ({size} bytes)"
    rest = {key: value for key, value in event.items() if key != "type"} if isinstance(event, dict) else event
    text = _plain(rest)
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}… ({size} bytes)"
    return f"{kind} {text}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
