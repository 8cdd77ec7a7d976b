"""Asking the running daemon through its admin socket, and one line for whatever is in the way."""

import argparse
import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtpipe.api.errors import ConfigError
from rtpipe.cli import options
from rtpipe.daemon import config_files
from rtpipe.daemon.config import Admin
from rtpipe.daemon.config_convert import convert
from rtpipe.daemon.config_files import one_line

Json = dict[str, Any]

ANSWER_LIMIT_S = 10.0


class NoDaemon(ConfigError):
    """Nobody answers."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """How the daemon is found: ``--socket``, else through ``--config``."""
    options.config(parser)
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="the admin socket of the running daemon (default: the one in the configuration)",
    )


def socket_of(args: argparse.Namespace) -> Path:
    """Where the daemon is asked. Raises ``ConfigError``."""
    if args.socket is not None:
        return Path(args.socket)
    # Nothing but this table is judged: a daemon runs on while its files have mistakes in them.
    sources = config_files.read_all(config_files.find(args.config))
    table = sources.data.get("admin", {})
    admin = convert(table if isinstance(table, dict) else {}, Admin, sources, ("admin",))
    if admin.socket is None:
        raise sources.error(
            (), "no admin socket: write [admin] with socket = …, restart, or give --socket PATH"
        )
    return Path(admin.socket)


def ask(path: Path, method: str, target: str, limit_s: float = ANSWER_LIMIT_S) -> Json:
    """One HTTP request; returns the JSON of the answer. Raises ``ConfigError``, also for a refusal."""
    with _connected(path, limit_s) as connected:
        connection = http.client.HTTPConnection("rtpipe")
        connection.sock = connected
        try:
            connection.request(method, target)
            response = connection.getresponse()
            body = json.loads(response.read())
        except (http.client.HTTPException, ValueError):
            raise nothing_of_ours(path) from None
    if response.status != http.client.OK:
        raise ConfigError(_message(body))
    return dict(body)


def watch(path: Path, hello: Json) -> Iterator[bytes]:
    """Say *hello* and yield the lines that come, from the welcome on, until the daemon ends the connection.

    Raises ``ConfigError``.
    """
    with _connected(path, ANSWER_LIMIT_S) as connected:
        connected.sendall(json.dumps(hello).encode() + b"\n")
        with connected.makefile("rb") as lines:
            for line in lines:
                connected.settimeout(None)  # what there is to see may be long in coming
                yield line


def nothing_of_ours(path: Path) -> ConfigError:
    """The error to raise when what comes from there makes no sense."""
    return ConfigError(one_line(f"what listens at {path} is no admin socket of rtpipe"))


@contextmanager
def _connected(path: Path, limit_s: float) -> Iterator[socket.socket]:
    """Raises ``ConfigError`` for whatever goes wrong from the first to the last byte."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(limit_s)
        try:
            made.connect(os.fspath(path))
            yield made
        except FileNotFoundError:
            raise NoDaemon(
                f"there is no socket at {path}: is the daemon running, with that [admin]?"
            ) from None
        except ConnectionRefusedError:
            raise NoDaemon(f"nobody listens at {path}: the daemon is not running") from None
        except PermissionError:
            what = "be root, the daemon's user, or in the group that [admin] names"
            raise ConfigError(f"this user may not open {path}: {what}") from None
        except TimeoutError:
            raise ConfigError(f"the daemon at {path} does not answer within {limit_s:g} s") from None
        except OSError as exc:
            raise ConfigError(one_line(f"{path}: {exc.strerror or exc}")) from None


def _message(body: Any) -> str:
    try:
        return str(body["error"]["message"])
    except (KeyError, TypeError):
        return "the daemon refused without a reason"
