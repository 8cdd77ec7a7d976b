"""The clients that people use, unmodified, against a daemon process: ``python -m tests.clients``.

Installs what is missing, prints one table, and exits with 1 if a turn failed or a client is not there.
"""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from tests.clients.browser import Site, browser
from tests.clients.install import NotInstalled
from tests.clients.openai_node import openai_node
from tests.clients.openai_python import openai_python
from tests.clients.rows import Row, table
from tests.clients.scene import Scene, scene
from tests.clients.socat import socat

NOT_INSTALLED = 2  # what tests.autobahn exits with then
_AUTOBAHN_LIMIT_S = 1800

Client = Callable[[Scene], Awaitable[list[Row]]]


async def _run() -> list[Row]:
    site = Site()
    clients: dict[str, Client] = {
        "openai-node": openai_node,
        "openai-python": openai_python,
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
    return rows


def _autobahn() -> int:
    """The suite prints its own summary. Without Python 2.7 it cannot be installed, and says so."""
    sys.stdout.write("Autobahn test suite\n")
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "tests.autobahn"], timeout=_AUTOBAHN_LIMIT_S)
    return done.returncode


def main() -> int:
    """Run them all, and the Autobahn test suite where it can be installed."""
    rows = trio.run(_run)
    sys.stdout.write(table(rows))
    failed = any(row.failed for row in rows)
    return 1 if _autobahn() not in (0, NOT_INSTALLED) or failed else 0


if __name__ == "__main__":
    sys.exit(main())
