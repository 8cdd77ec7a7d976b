"""The short form of ``make soak``: storms break loose one after the other, and nothing is left of any.

What well-behaved sessions notice of them can be said only of a machine that does nothing else.
"""

import pytest
import trio

from rtpipe.daemon.pressure import LOOK_S
from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY, client, listening, running, scripted
from tests.faults.soak import Gateway, configure, places
from tests.faults.storms import Front, once

STORMS = (
    "resets on both legs",
    "half-open handshakes",
    "ping floods",
    "protocol breaches",
    "garbage JSON",
    "wrong keys",
    "parked sessions",
    "JSON lines cut",
    "taps cut",
    "reloads",
)
SETTLE_S = 60.0
"""Far more than the limits of this daemon's configuration come to."""
MEMORY_BYTES = 128_000_000
"""How much more it may have: what a process has used once, it keeps."""


async def test_nothing_is_left_of_storms(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)
    front = Front()
    async with scripted() as model, listening(front.serve_model) as hostile:
        file = configure(tmp_path, 0, model.url, hostile)
        async with running(file) as daemon:
            front.port, front.unix, front.admin, front.drop_in = places(tmp_path, daemon.address[1])
            gateway = Gateway(daemon.process.pid, front.port, tmp_path)
            async with client(daemon.address) as app:
                await app.receive()  # what is loaded at first use is no leak
                await app.close()
            before = await steady(gateway)
            for name in STORMS:
                front.done.clear()
                await once(front, name)
                assert front.done, name
            memory = before.pop("memory") + MEMORY_BYTES
            after = await left(gateway, before)
            assert after["memory"] < memory


async def steady(gateway: Gateway) -> dict[str, int]:
    """What it has, as soon as two looks of its own have found the same."""
    seen: list[dict[str, int]] = []
    while len(seen) < 2 or {**seen[-1], "memory": 0} != {**seen[-2], "memory": 0}:
        await trio.sleep(1.5 * LOOK_S)
        seen.append(await trio.to_thread.run_sync(gateway.left))
    return seen[-1]


async def left(gateway: Gateway, at_most: dict[str, int]) -> dict[str, int]:
    """What it has, as soon as that is no more than this."""
    found: dict[str, int] = {}
    with trio.move_on_after(SETTLE_S):
        while not found or any(found[what] > most for what, most in at_most.items()):
            await trio.sleep(0.1)
            found = await trio.to_thread.run_sync(gateway.left)
        return found
    pytest.fail(f"there is {found}, and not {at_most}")
