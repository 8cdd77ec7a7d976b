"""Networks that lose packets, swallow all of them, or reset connections, around a daemon in namespaces."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.daemon.kit import Process, config, started
from tests.daemon.wire import WAIT_S, WebSocket
from tests.faults.books import turn
from tests.faults.lab import CLIENTS, GATEWAY, MODEL, PORT, Lab, lab
from tests.faults.machine import inside

TALKERS, TURNS = 20, 3
NOTICED_S = 45.0
"""Bounds the wait for what has to be noticed within 40 s."""
SLOW = 'how are you, and {"much": "to say"}' + ", and so on" * 40
"""What the model repeats, so its answer takes a while."""


@dataclass
class Scene:
    lab: Lab
    gateway: Process

    async def said(self, text: str) -> float:
        """Seconds until the daemon says it."""
        began = trio.current_time()
        with trio.fail_after(NOTICED_S):
            while text not in self.gateway.err:  # noqa: ASYNC110 - what it says is read by another task
                await trio.sleep(0.02)
        return trio.current_time() - began


@asynccontextmanager
async def scene(pace: str = "0", upstream: str = "") -> AsyncIterator[Scene]:
    """A daemon, and a simulated model that speaks so fast; *upstream* is added to the upstream's options."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rtpipe.toml"
        text = config(
            Path(folder) / "state", f"ws://{MODEL}:{PORT}/v1/realtime", chain=("auth", "response-lock")
        )
        text = text.replace("127.0.0.1:0", f"{GATEWAY}:{PORT}")
        file.write_text(text.replace('kind = "sim"\n', f'kind = "sim"\n{upstream}\n'))
        async with lab() as networks, _model(networks, pace):
            async with started(file, launcher=networks.launcher) as gateway:
                await gateway.said(" with chain ")
                yield Scene(networks, gateway)
                gateway.signal()
                assert await gateway.exited() == 0, gateway.err
            assert "Traceback" not in gateway.err, gateway.err


@asynccontextmanager
async def _model(networks: Lab, pace: str) -> AsyncIterator[None]:
    command = ["-m", "rtpipe.cli.main", "sim", "--host", MODEL, "--port", str(PORT), "--pace", pace]
    process = await trio.lowlevel.open_process(
        [*inside(networks.outside, "net"), sys.executable, *command], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    async with process.stdout:
        try:
            with trio.fail_after(WAIT_S):
                assert await process.stdout.receive_some()  # it serves
            yield
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _ask(app: WebSocket) -> None:
    """Until the answer has begun."""
    content = [{"type": "input_text", "text": SLOW}]
    await app.tell("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await app.tell("response.create")
    await app.until("response.created")


async def clients_vanish() -> str:
    """In mid answer nothing comes from the clients any more, not even a reset; nor do they hear anything."""
    async with scene(pace="1") as it:
        plain, named = await it.lab.client(), await it.lab.client(("rtpipe-session", "a-key-of-the-client"))
        for app in (plain, named):
            await app.until("session.created")
        await _ask(plain)
        async with it.lab.dropping('iifname "clients"'):
            begun = trio.current_time()
            await it.said(" closed by client after ")
            closed = trio.current_time() - begun
            await it.said(": client leg parked: ")
            parked = trio.current_time() - begun
        for app in (plain, named):
            await trio.aclose_forcefully(app.stream)
        again = await it.lab.client(("rtpipe-session", "a-key-of-the-client"))
        await it.said(": client leg resumed")
        assert await turn(again) == "completed"
        await trio.aclose_forcefully(again.stream)
    seen = f"one that was spoken to is closed after {closed:.0f} s"
    return f"{seen}, one that waits is parked after {parked:.0f} s, and resumes"


async def model_vanishes() -> str:
    """In mid answer nothing comes from the model any more; later the network is well again."""
    async with scene(pace="1", upstream="keepalive_s = 1") as it:
        app = await it.lab.client()
        await app.until("session.created")
        await _ask(app)
        async with it.lab.dropping('iifname "model"'):
            lost = await it.said(": upstream leg lost: ")
        replaced = await it.said(": upstream leg replaced")
        (done,) = (await app.until("response.done"))[-1:]
        assert done["response"]["status"] == "failed"
        assert await turn(app) == "completed"
        await trio.aclose_forcefully(app.stream)
    back = f"replaced {replaced:.1f} s after the network was well; the cut answer failed, the next came"
    return f"lost after {lost:.1f} s with keepalive_s = 1, {back}"


async def resets() -> str:
    """The kernel resets established connections, first those to the model, then those of clients."""
    async with scene(pace="1") as it:
        app = await it.lab.client()
        await app.until("session.created")
        await _ask(app)
        await it.lab.reset("dst", MODEL)
        lost = await it.said(": upstream leg lost: ")
        await it.said(": upstream leg replaced")
        await app.until("response.done")
        assert await turn(app) == "completed"
        await it.lab.reset("dst", CLIENTS)
        gone = await it.said(" closed by client after ")
        await trio.aclose_forcefully(app.stream)
    return f"the model's: noticed after {lost:.2f} s, replaced; the client's: noticed after {gone:.2f} s"


async def loss() -> str:
    """At 20 Mbit/s 3 % of all packets are lost on both networks; then 10 % of what clients send."""
    async with scene() as it:
        await it.lab.slow("20mbit")
        everywhere = (_lose(3, "clients"), _lose(3, "model"))
        for rules in (everywhere, (f"ip saddr {CLIENTS} {_lose(10, 'clients')}",)):
            async with it.lab.dropping(*rules), trio.open_nursery() as nursery:
                for _ in range(TALKERS):
                    nursery.start_soon(_talk, it.lab)
        assert it.lab.dropped
    return (
        f"{2 * TALKERS} clients, {2 * TALKERS * TURNS} answers, all there; {it.lab.dropped} packets were not"
    )


async def _talk(networks: Lab) -> None:
    app = await networks.client()
    for _ in range(TURNS):
        assert await turn(app, SLOW) == "completed"
    await app.close()


def _lose(percent: int, link: str) -> str:
    return f'iifname "{link}" numgen random mod 100 < {percent}'
