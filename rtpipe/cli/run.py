"""``rtpipe run``: the daemon."""

import argparse
import faulthandler
import gc
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from rtpipe.cli import options
from rtpipe.cli.output import complain
from rtpipe.daemon.config_files import standing
from rtpipe.daemon.config_load import Loaded, from_text, load

if TYPE_CHECKING:
    from rtpipe.daemon.daemon import Ready

NAME = "run"
HELP = "run the daemon until it is told to stop"


# What `run --sim` serves where nobody has written a configuration: this machine alone can reach it.
TRIAL = """
[[listen]]
address = "127.0.0.1:8787"
open = true

[[upstream]]
name = "sim"
kind = "sim"
url = "ws://127.0.0.1/v1/realtime"
default_model = "gpt-realtime-2.1"
"""

# The last: all that is alive is looked through once in 500,000 objects that stay. It takes half a millisecond
# for each session in service, and nothing of one that has ended waits for it.
_GARBAGE = 1000, 5, 100


def arguments(parser: argparse.ArgumentParser) -> None:
    options.config(parser)
    parser.add_argument(
        "--sim",
        action="store_true",
        help="with a simulated model instead of the configured upstreams; without a configuration, on "
        "127.0.0.1:8787 for everybody on this machine",
    )
    parser.add_argument(
        "--sim-pace",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="how fast the simulated model speaks: 1 in real time, 0 without waiting (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    import trio

    from rtpipe.daemon import daemon, logs
    from rtpipe.daemon.service import passed_sockets

    loaded, read_again = _load(args)
    logs.set_up(loaded.config.log)
    for warning in loaded.warnings:
        complain(f"warning: {warning}")
    pace = args.sim_pace if args.sim else None
    faulthandler.enable()  # the service manager's watchdog kills with SIGABRT: say what we were at
    sockets = passed_sockets()
    trio.run(
        partial(daemon.run, loaded, sim_pace=pace, ready=_say_ready, read_again=read_again, sockets=sockets)
    )
    return 0


def _load(args: argparse.Namespace) -> tuple[Loaded, Callable[[], Loaded] | None]:
    """The configuration, and how to load the same files again, if there are any."""
    if args.sim and args.config is None and standing() is None:
        return from_text(TRIAL, "the trial configuration"), None
    loaded = load(args.config)
    return loaded, partial(load, loaded.path.absolute())


def _say_ready(ready: "Ready") -> None:
    # What is there by now stays. To look through all of it for garbage takes a tenth of a second, for which
    # every session waits.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    stages = " · ".join(stage.name for stage in ready.process.chain.stages) or "(no stages)"
    print(f"rtpipe: ready at {' '.join(ready.addresses)} with chain {stages}", flush=True)
