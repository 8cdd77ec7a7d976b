"""``rtpipe sim``: run the simulated model, which costs nothing and needs no account."""

import argparse
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rtpipe.api.errors import ConfigError

NAME = "sim"
HELP = "run a simulated model that any Realtime client, and rtpipe, can use"
# What it does and how it is told to. Of the simulator itself only --help and a run load more than this.
WORDS = """\
what a user's text makes it do (all of it: rtpipe/sim/README.md):
  how are you                      says "You said: how are you"
  call dice {"sides": 20}          calls the tool "dice", if it is declared, with these arguments
  call! anything                   calls "anything", declared or not
  fail server_error                ends the response with status failed and this code
  fault! drop after 3 events       does this to its own connection

faults, for --fault, POST /sim/faults, scripts and texts:
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = _Help
    parser.epilog = WORDS
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
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="know only this one (again for another; default: any)",
    )
    parser.add_argument(
        "--session-seconds",
        type=float,
        default=3600,
        metavar="SECONDS",
        help="end sessions after so long (default: %(default)s, as OpenAI does)",
    )
    parser.add_argument(
        "--requests-per-minute", type=int, metavar="N", help="responses beyond it fail (default: no limit)"
    )
    parser.add_argument(
        "--tokens-per-minute", type=int, metavar="N", help="responses beyond it fail (default: no limit)"
    )
    parser.add_argument(
        "--legacy-events",
        action="store_true",
        help="also send conversation.created and conversation.item.created",
    )
    parser.add_argument("--azure", action="store_true", help="deviate from OpenAI where Azure is known to")
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="a TOML file that says what it does")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="WORDS",
        help="do this to every session or handshake (again for another); the words are below",
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="append every event of every session, as JSON lines"
    )


def run(args: argparse.Namespace) -> int:
    import trio

    from rtpipe.sim import FaultError, ScenarioError, SimOptions, read_scenario, serve

    keys = _keys(args.api_key_file) if args.api_key_file else None
    with ExitStack() as files:
        try:
            options = SimOptions(
                pace=args.pace,
                seed=args.seed,
                requests_per_minute=args.requests_per_minute,
                tokens_per_minute=args.tokens_per_minute,
                legacy_events=args.legacy_events,
                api_keys=keys,
                models=frozenset(args.model) if args.model else None,
                session_seconds=args.session_seconds,
                azure=args.azure,
                faults=tuple(args.fault),
                scenario=read_scenario(args.scenario) if args.scenario else None,
                log=_writer(files.enter_context(_opened(args.log))) if args.log else None,
            )
        except (ScenarioError, FaultError, ValueError) as exc:
            raise ConfigError(str(exc)) from None
        serving = partial(serve, options, host=args.host, port=args.port, task_status=_Ready())
        try:
            trio.run(_until_terminated, serving)
        except* OSError as group:
            failed = next(iter(group.exceptions))
            reason = getattr(failed, "strerror", None) or failed
            raise ConfigError(f"cannot listen at {args.host} port {args.port}: {reason}") from None
    return 0


async def _until_terminated(serving: Callable[[], Any]) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serving)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the epilog, and ends it with the words for faults."""

    def add_text(self, text: str | None) -> None:
        if text == WORDS:
            from rtpipe.sim import GRAMMAR

            text += "".join(f"  {line}\n" for line in GRAMMAR.splitlines())
        super().add_text(text)


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


def _opened(path: Path) -> TextIO:
    try:
        return path.open("a", encoding="utf-8", buffering=1)  # whole lines, at once
    except OSError as exc:
        raise ConfigError(f"log file {path} cannot be written: {exc.strerror or exc}") from None


def _writer(file: TextIO) -> Callable[[str], None]:
    return lambda line: print(line, file=file)


def _keys(path: Path) -> frozenset[str]:
    try:
        keys = frozenset(path.read_text("utf-8").split())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"key file {path} cannot be read: {exc}") from None
    if not keys:
        raise ConfigError(f"key file {path} has no key in it")
    return keys
