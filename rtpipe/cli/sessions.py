"""``rtpipe sessions``: who is in session, one of them closely, and an end to it."""

import argparse
import json
from urllib.parse import quote

from rtpipe.cli import admin
from rtpipe.cli.output import complain, table
from rtpipe.daemon.config_files import one_line

NAME = "sessions"
HELP = "list the sessions of the running daemon, show one, or end it"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("list", "show", "kill"),
        nargs="?",
        default="list",
        help="show: one with all its counters; kill: end one, its client is told 1008 (default: %(default)s)",
    )
    parser.add_argument("session", metavar="ID", nargs="?", help="which one; for show and kill")
    parser.add_argument("--json", action="store_true", help="print what the daemon answers")
    admin.arguments(parser)


def run(args: argparse.Namespace) -> int:
    path = admin.socket_of(args)
    if (args.session is None) != (args.action == "list"):
        complain("write: rtpipe sessions, rtpipe sessions show ID, or rtpipe sessions kill ID")
        return 2
    target = "/sessions" if args.session is None else f"/sessions/{quote(args.session, safe='')}"
    answer = admin.ask(path, "DELETE" if args.action == "kill" else "GET", target)
    if args.json:
        print(json.dumps(answer))
    elif args.action == "kill":
        print(f"ended: {one_line(answer['ended'])}")
    elif args.action == "list":
        _list(answer["sessions"])
    else:
        _show(answer)
    return 0


def _list(sessions: list[admin.Json]) -> None:
    rows = [
        (
            "SESSION",
            "PRINCIPAL",
            "MODEL",
            "UPSTREAM",
            "LISTENER",
            "AGE",
            "CLIENT",
            "UP",
            "DOWN",
            "WAITING",
            "BYTES",
        )
    ]
    rows += [
        (
            each["id"],
            each["principal"],
            each["model"],
            each["upstream"],
            each["listener"],
            _age(each["age_s"]),
            "yes" if each["client_attached"] else "gone",
            str(each["events"]["upstream"]["came"]),
            str(each["events"]["downstream"]["came"]),
            str(sum(each["waiting"].values())),
            _size(sum(each["bytes"].values())),
        )
        for each in sessions
    ]
    table(rows)


def _show(session: admin.Json) -> None:
    rows = [(key, session[key]) for key in ("id", "principal", "model", "upstream", "listener")]
    rows += [
        ("age", _age(session["age_s"])),
        ("client", "attached" if session["client_attached"] else "gone"),
        ("chain", "one from before a reload" if session["on_old_chain"] else "the one in force"),
    ]
    for direction, fates in session["events"].items():
        told = ", ".join(f"{count} {fate}" for fate, count in fates.items())
        waiting, size = session["waiting"][direction], _size(session["bytes"][direction])
        rows.append((direction, f"{told}, {waiting} waiting, {size}"))
        for kind, passed in sorted(session["types"][direction].items()):
            rows.append(("", f"{one_line(kind)}: {passed['events']}, {_size(passed['bytes'])}"))
    for loss in session["losses"]:
        rows.append(("lost", f"{one_line(loss['time'])} {one_line(loss['leg'])}: {one_line(loss['what'])}"))
    table(rows)


def _age(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02} min"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
