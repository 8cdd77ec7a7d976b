"""The simulated model, the gateway, and what cuts the ways to both: processes and sockets of their own."""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.clients.scene import Place
from tests.daemon.kit import Process, config, running
from tests.survival import cutting
from tests.survival.conversation import Told, told
from tests.survival.cutting import Cut

PACE = "50"
"""How much faster than in real time the model speaks."""
CHAIN = ["tracing", "auth", "image-compressor", "tool-dispatcher", "response-lock", "cost-governor"]
_KEEPALIVE_S = 3


@dataclass
class Ground:
    """Where calls are made."""

    client: Place
    calls: dict[str, Cut] = field(default_factory=dict)
    """Those that may be cut, by name."""
    model_log: Path = Path()
    gateway: Process | None = None
    """Of the daemon."""

    def told(self) -> dict[str, Told]:
        """What became of the calls that are over."""
        assert self.gateway is not None
        lines = [line for line in self.gateway.log if line.startswith("{")]
        return told(self.model_log.read_text().splitlines(), lines)


@asynccontextmanager
async def ground(origin: str, *model_options: str) -> AsyncIterator[Ground]:
    """A daemon with the whole chain in front of a model; the daemon must end well."""
    with tempfile.TemporaryDirectory(prefix="rtpipe-survival-") as name:
        folder, calls = Path(name), dict[str, Cut]()
        log = folder / "model.log"
        async with model(log, model_options) as place, cutting.opened("upstream", place, calls) as upstream:
            file = folder / "rtpipe.toml"
            file.write_text(_config(folder, origin, upstream))
            async with (
                running(file) as daemon,
                cutting.opened("client", daemon.address, calls) as port,
            ):
                yield Ground(Place(f"127.0.0.1:{port}", "", Path(), Path()), calls, log, daemon)


@asynccontextmanager
async def model(log: Path, options: Sequence[str]) -> AsyncIterator[tuple[str, int]]:
    """``rtpipe sim``"""
    command = [sys.executable, "-m", "rtpipe.cli.main", "sim", "--port", "0", "--pace", PACE, *options]
    process = await trio.lowlevel.open_process([*command, "--log", str(log)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        said = await process.stdout.receive_some()
        host, _, port = said.decode().split("ws://")[1].partition("/")[0].rpartition(":")
        yield host, int(port)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


def _config(folder: Path, origin: str, upstream: int) -> str:
    text = config(
        folder / "state",
        f"ws://127.0.0.1:{upstream}/v1/realtime",
        chain=CHAIN,
        listen=f'origins = ["{origin}"]',
        more="""
[session]
on_cut = "retry"
rollover_s = 1

[log]
format = "json"

[plugins.tracing]
endpoint = "http://127.0.0.1:9"
traces = false
metrics = false
""",
    )
    return text.replace('kind = "sim"', f'kind = "sim"\nkeepalive_s = {_KEEPALIVE_S}')
