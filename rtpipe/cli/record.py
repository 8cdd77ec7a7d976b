"""``rtpipe record``: a session of the running daemon into a file, to be played again."""

import argparse
import json
import os
from time import monotonic
from urllib.parse import quote

from rtpipe.api.errors import ConfigError
from rtpipe.cli import admin
from rtpipe.cli.output import complain
from rtpipe.daemon.config_files import one_line

NAME = "record"
HELP = "record a session of the running daemon into a file, for rtpipe replay"
VERSION = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="its id, as rtpipe sessions lists it")
    parser.add_argument("file", metavar="FILE", help="a file that does not exist yet; only you may read it")
    admin.arguments(parser)
    parser.epilog = (
        "Records from now until the session ends, or Ctrl-C. Sound and images are as they were, words are "
        "redacted, pieces of texts left out."
    )


def run(args: argparse.Namespace) -> int:
    path = admin.socket_of(args)
    about = admin.ask(path, "GET", f"/sessions/{quote(args.session, safe='')}")
    head = {"rtpipe_recording": VERSION, "model": about["model"], "asked": about["asked"]}
    try:
        # Never somebody else's file, and nobody else's to read.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = os.fdopen(os.open(args.file, flags, 0o600), "w", encoding="ascii")
    except OSError as exc:
        raise ConfigError(one_line(f"{args.file}: {exc.strerror}")) from None
    began, count = monotonic(), 0
    with file:
        file.write(json.dumps(head) + "\n")
        for line in admin.watch(path, {"type": "rtpipe.hello", "role": "tap", "session": args.session}):
            match json.loads(line):
                case {"type": "rtpipe.event", "direction": direction, "event": event}:
                    told = {"at_s": round(monotonic() - began, 3), "direction": direction, "event": event}
                    file.write(json.dumps(told) + "\n")
                    count += 1
                case {"type": "rtpipe.welcome"}:
                    print(f"recording {one_line(args.session)}", flush=True)
                case {"type": "rtpipe.missed", "count": missed}:
                    complain(f"warning: {missed} events came too fast and are not in {args.file}")
                case {"type": "rtpipe.refused", "message": message}:
                    raise ConfigError(one_line(str(message)))
                case {"type": "rtpipe.fact", "fact": "SessionClosed"} | {"type": "rtpipe.closed"}:
                    break
                case _:
                    continue
            file.flush()
    print(f"{args.file}: {count} events")
    return 0
