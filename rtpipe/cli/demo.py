"""``rtpipe demo``: the daemon, a simulated model and one conversation between them, told as it happens."""

import argparse
import os
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rtpipe.api.errors import ConfigError
from rtpipe.cli import options
from rtpipe.cli.run import TRIAL
from rtpipe.daemon.config_load import Loaded, from_text, load

NAME = "demo"
HELP = "run the daemon with a simulated model and drive one conversation through it"

KEY = "RTPIPE_DEMO_KEY"
LIMIT_S = 60.0


def arguments(parser: argparse.ArgumentParser) -> None:
    options.config(parser)
    parser.epilog = f"Without --config the chain is empty. A key for the demo is in ${KEY} while it runs."


def run(args: argparse.Namespace) -> int:
    import trio

    # Made anew each time, so that no key stands in a file.
    os.environ[KEY] = f"demo_{secrets.token_urlsafe(24)}"
    loaded = _load(args.config)
    if not any(listener.url.startswith("ws://") for listener in loaded.config.listen):
        raise ConfigError(f"{loaded.path}: the demo needs a listener of TCP without TLS")
    return trio.run(partial(_demo, loaded, os.environ[KEY]))


def _load(path: Path | None) -> Loaded:
    if path is not None:
        return load(path)
    return from_text(TRIAL.replace(":8787", ":0"), "the trial configuration")


async def _demo(loaded: Loaded, key: str) -> int:
    mistakes: list[ConfigError] = []
    outcome = 1
    try:
        outcome = await _converse(loaded, key)
    except* ConfigError as group:
        mistakes = list(_leaves(group))
    if mistakes:
        raise mistakes[0]
    return outcome


async def _converse(loaded: Loaded, key: str) -> int:
    import trio

    from rtpipe.cli.demo_conversation import Narrator, converse
    from rtpipe.daemon import daemon

    narrator = Narrator()
    is_ready: list[daemon.Ready] = []
    outcome = 1
    async with trio.open_nursery() as nursery:
        ready = trio.Event()

        def say_ready(what: daemon.Ready) -> None:
            is_ready.append(what)
            ready.set()

        async def serve() -> None:
            await daemon.run(loaded, sim_pace=SIM_PACE, ready=say_ready, observer=narrator.fact)

        nursery.start_soon(serve)
        await ready.wait()
        with trio.move_on_after(LIMIT_S) as limit:
            outcome = await converse(is_ready[0], key, narrator)
        if limit.cancelled_caught:
            raise ConfigError(f"the demo did not end within {LIMIT_S:g} s")
        nursery.cancel_scope.cancel()
    return outcome


def _leaves(group: BaseExceptionGroup[ConfigError]) -> Iterator[ConfigError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


SIM_PACE = 5.0
"""Fast enough not to bore, slow enough that two requests really cross."""
