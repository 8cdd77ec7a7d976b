"""The clients that people use, unmodified, against a daemon process: ``python -m tests.clients``.

Installs what is missing, prints one table, and exits with 1 if a turn failed or a client is not there.
"""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import trio

from tests.clients import install, node_clients, python_clients
from tests.clients.browser import Site, browser
from tests.clients.dispatching import dispatching
from tests.clients.install import NotInstalled
from tests.clients.node_clients import agents_realtime, openai_node
from tests.clients.python_clients import livekit, openai_agents, openai_beta, openai_python, pipecat
from tests.clients.rows import Row, table
from tests.clients.scene import Scene, scene
from tests.clients.slow import slowed
from tests.clients.socat import socat
from tests.survival import outcomes
from tests.survival.calls import cut_everywhere

NOT_INSTALLED = 2  # what tests.autobahn exits with then
_AUTOBAHN_LIMIT_S = 1800
_CUTS = 3
"""Boundaries of a call at which each leg is cut in each way. ``make cuts`` cuts at all."""

Client = Callable[[Scene], Awaitable[list[Row]]]


async def _run() -> list[Row]:
    await _install()
    site = Site()
    clients: dict[str, Client] = {
        "openai-python": openai_python,
        "openai-python (beta)": openai_beta,
        "openai-node": openai_node,
        "openai-agents": openai_agents,
        "@openai/agents-realtime": agents_realtime,
        "livekit-plugins-openai": livekit,
        "pipecat-ai": pipecat,
        "Chromium": partial(browser, site),
        "socat": socat,
    }
    rows = []
    async with scene(site.origin) as here:
        for name, client in clients.items():
            try:
                rows += await client(here)
            except NotInstalled as missing:
                rows.append(Row(name, "-", "-", failed={"all": str(missing)}))
        async with slowed(here.gateway) as place:
            far = replace(here, gateway=place)
            slow = [*await openai_python(far, ("TCP",)), *await openai_node(far)]
            rows += [replace(row, transport=f"{row.transport}, slow network") for row in slow]
        async with dispatching(here.model) as place:
            rows += [*await python_clients.dispatched(place), *await node_clients.dispatched(place)]
    return rows


async def _install() -> None:
    """What is missing, at once for all. What cannot be installed is said by the client that needs it."""
    begun = trio.current_time()

    async def one(function: Callable[..., object], *args: object) -> None:
        with suppress(NotInstalled):
            await trio.to_thread.run_sync(function, *args)

    async with trio.open_nursery() as nursery:
        for name in install.environments():
            nursery.start_soon(one, install.python, name)
        nursery.start_soon(one, install.node)
        nursery.start_soon(one, install.debian, "chromium", "socat")
    sys.stdout.write(f"installed in {trio.current_time() - begun:.0f} s\n")


def _autobahn() -> int:
    """The suite prints its own summary. Without Python 2.7 it cannot be installed, and says so."""
    sys.stdout.write("Autobahn test suite\n")
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "tests.autobahn"], timeout=_AUTOBAHN_LIMIT_S)
    return done.returncode


def main() -> int:
    """Run them all, cut some of their calls, and run the Autobahn test suite where it can be installed."""
    rows = trio.run(_run)
    sys.stdout.write(table(rows))
    cut = trio.run(cut_everywhere, _CUTS)
    sys.stdout.write(outcomes.table(cut))
    failed = any(row.failed for row in rows) or outcomes.failed(cut)
    return 1 if _autobahn() not in (0, NOT_INSTALLED) or failed else 0


if __name__ == "__main__":
    sys.exit(main())
