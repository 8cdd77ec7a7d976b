"""``rtpipe sim``: run the simulated model, which costs nothing and needs no account."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from rtpipe.api.errors import ConfigError

NAME = "sim"
HELP = "run a simulated model that any Realtime client, and rtpipe, can use"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8765, help="0: a free one (default: %(default)s)")
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="1 speaks in real time, 4 four times as fast, 0 never waits (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, help="the same ids in every run")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="accept only the keys in FILE, one a line"
    )


def run(args: argparse.Namespace) -> int:
    import trio

    from rtpipe.sim import SimOptions, serve

    keys = _keys(args.api_key_file) if args.api_key_file else None
    try:
        options = SimOptions(pace=args.pace, seed=args.seed, api_keys=keys)
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    try:
        trio.run(partial(serve, options, host=args.host, port=args.port, task_status=_Ready()))
    except OSError as exc:
        raise ConfigError(f"cannot listen at {args.host} port {args.port}: {exc.strerror or exc}") from None
    return 0


class _Ready:
    """Is told the address as soon as the simulated model listens there."""

    def started(self, value: Any = None) -> None:
        host, port = value
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(
            f"rtpipe sim: ready at ws://{place}/v1/realtime (for clients: OPENAI_BASE_URL=http://{place}/v1; "
            "for rtpipe: an [[upstream]] of kind sim with that url)",
            flush=True,
        )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _keys(path: Path) -> frozenset[str]:
    try:
        keys = frozenset(path.read_text("utf-8").split())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"key file {path} cannot be read: {exc}") from None
    if not keys:
        raise ConfigError(f"key file {path} has no key in it")
    return keys
