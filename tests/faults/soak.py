"""``make soak``: attacks for an hour, or for so many seconds. What stays of them in the daemon, and what 50
well-behaved sessions notice of them, beside the same sessions without."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import trio

from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY, config, running, scripted
from tests.daemon.wire import WebSocket, get
from tests.faults import cases
from tests.faults.cases import CONFIG, Scene, met, resident

SESSIONS = 50
EVERY_S = 0.2
SETTLE_S = 30.0
CALM_S = 2.5
"""Until the daemon has counted its tasks again, with nothing going on."""
MORE = {"memory": 32e6, "descriptors": 4, "tasks": 4}
"""How much more there may be at the end."""
ATTACKS: tuple[Callable[[Scene], Awaitable[str]], ...] = (
    cases.half_handshakes,
    cases.bad_frames,
    cases.too_long,
    cases.odd_json,
    cases.long_heads,
    cases.no_handshake,
    cases.client_resets,
    cases.silent,
)


async def soak(seconds: float) -> bool:
    """Whether everything is as it was at the end; prints what it saw."""
    os.environ[KEY_VARIABLE] = UPSTREAM_KEY
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rtpipe.toml"
        async with scripted() as model:
            file.write_text(config(Path(folder) / "state", model.url, listen="metrics = true", more=CONFIG))
            async with running(file) as gateway:
                scene = Scene(gateway, model)
                await _attack(scene, 0)  # once each: what is loaded at first use is no leak
                await trio.sleep(CALM_S)
                before = await _left(scene)
                quiet = await _well_behaved(scene, min(seconds / 4, 60), attacked=False)
                noisy = await _well_behaved(scene, seconds, attacked=True)
                await trio.sleep(CALM_S)
                with trio.move_on_after(SETTLE_S):
                    while not _back(before, after := await _left(scene)):  # noqa: ASYNC110
                        await trio.sleep(0.1)
    lines = [f"{SESSIONS} sessions, an event each way every {EVERY_S:g} s, there and back, in ms:"]
    for name, times in (("without attacks", quiet), ("with attacks", noisy)):
        spread = f"median {median(times) * 1e3:.2f}, p99 {_p99(times) * 1e3:.2f}"
        lines.append(f"  {name:16} {spread}, {len(times)} events")
    for what, count in before.items():
        lines.append(f"{what:11} {_told(what, count)} before, {_told(what, after[what])} after")
    print("\n".join(lines))  # noqa: T201
    return _back(before, after)


async def _left(scene: Scene) -> dict[str, int]:
    """What the daemon has now. It counts its tasks once a second."""
    answer = await get(scene.address, "/metrics")
    (tasks,) = re.findall(rb'(?m)^rtpipe_used\{what="tasks"\} (\S+)$', answer.rest)
    return {
        "memory": resident(scene),
        "descriptors": scene.gateway.descriptors(),
        "tasks": int(float(tasks)),
    }


def _back(before: dict[str, int], after: dict[str, int]) -> bool:
    return all(after[what] <= before[what] + more for what, more in MORE.items())


def _told(what: str, count: int) -> str:
    return f"{count / 1e6:.0f} MB" if what == "memory" else str(count)


async def _well_behaved(scene: Scene, seconds: float, *, attacked: bool) -> list[float]:
    """How long each event of the well-behaved sessions took to the upstream and back."""
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        pairs = [await nursery.start(_stay, scene) for _ in range(SESSIONS)]
        for app, upstream in pairs:
            nursery.start_soon(_talk, app, upstream, times)
        if attacked:
            await _attack(scene, seconds)
        else:
            await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return times


async def _stay(scene: Scene, *, task_status: trio.TaskStatus[tuple[WebSocket, WebSocket]]) -> None:
    async with met(scene) as pair:
        task_status.started(pair)
        await trio.sleep_forever()


async def _talk(app: WebSocket, upstream: WebSocket, times: list[float]) -> None:
    while True:
        began = perf_counter()
        await app.tell("odd.there", at=began)
        assert (await upstream.event())["at"] == began
        await upstream.tell("odd.back", at=began)
        assert (await app.event())["at"] == began
        times.append(perf_counter() - began)
        await trio.sleep(EVERY_S)


async def _attack(scene: Scene, seconds: float) -> None:
    """One attack after the other, all of them at least once."""
    until = trio.current_time() + seconds
    for number, attack in enumerate(cycle(ATTACKS)):
        if number >= len(ATTACKS) and trio.current_time() >= until:
            return
        await attack(scene)


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


if __name__ == "__main__":
    sys.exit(0 if trio.run(soak, float(sys.argv[1])) else 1)
