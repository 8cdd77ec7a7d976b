"""``rtpipe tail``: what happens in the running daemon, as it happens."""

import argparse
import json
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from rtpipe.api.errors import ConfigError
from rtpipe.api.facts import SessionClosed
from rtpipe.cli import admin
from rtpipe.cli.output import complain
from rtpipe.daemon.config_files import one_line
from rtpipe.protocol.catalogue import UPSTREAM
from rtpipe.protocol.content import is_delta

NAME = "tail"
HELP = "show events and facts of the running daemon as they happen"

_SHOWN_CHARACTERS = 300
_FOLD_S = 1.0
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
    parser.epilog = "Deltas and audio are counted, words redacted. Ends with Ctrl-C."


def run(args: argparse.Namespace) -> int:
    path = admin.socket_of(args)
    hello = {"type": "rtpipe.hello", "role": "tap", "session": args.session, "types": args.types}
    folded = Folded()
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
        for text in [json.dumps(message)] if args.json else folded.told(message, len(line)):
            print(text, flush=True)
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


class Folded:
    """Deltas, of which only so many are shown: those of one type and session become one line, at the latest
    with the first event that is none, and every second."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, str], tuple[float, int, int]] = {}

    def told(self, message: dict[str, Any], size: int) -> list[str]:
        """The lines to print now that *message* has come."""
        match message:
            case {"type": "rtpipe.event", "session": session, "direction": way, "event": {"type": kind}} if (
                is_delta(str(kind))
            ):
                key, now = (str(session), str(way), str(kind)), monotonic()
                since, count, total = self._runs.get(key, (now, 0, 0))
                self._runs[key] = (since, count + 1, total + size)
                return [] if now - since < _FOLD_S else self._unfold([key])
        session = message.get("session") or message.get("fields", {}).get("session")
        return [*self._unfold([key for key in self._runs if key[0] == session]), told(message, size)]

    def _unfold(self, keys: list[tuple[str, str, str]]) -> list[str]:
        lines = []
        for key in keys:
            (session, way, kind), (_, count, size) = key, self._runs.pop(key)
            arrow = "→" if way == UPSTREAM else "←"
            lines.append(one_line(f"{_now()} {session} {arrow} {kind} ×{count} ({size} bytes)"))
        return lines


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]


def told(message: dict[str, Any], size: int) -> str:
    """One message of the daemon's, as a printable line; *size* is its bytes."""
    now = _now()
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
    rest = {key: value for key, value in event.items() if key != "type"} if isinstance(event, dict) else event
    text = _plain(rest)
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}… ({size} bytes)"
    return f"{kind} {text}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
