"""What the clients talk to: the simulated model, and a daemon in front of the same."""

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.clients.recorder import Recorder, listening
from tests.clients.replay import Log
from tests.daemon.kit import KEY, MODEL, UPSTREAM_KEY, config, running
from tests.docs.pages import block
from tests.sim.kit import png, silence, tone

PACE = "20"
"""How much faster than in real time the model speaks: a turn is short, and still long enough to interrupt."""


@dataclass(frozen=True)
class Place:
    """Where a client connects, in every way there is."""

    tcp: str
    """``127.0.0.1:port``"""
    tls: str
    """``localhost:port``"""
    unix: Path
    authority: Path

    def snippet(self, name: str) -> str:
        """A snippet of config/README.md, with our addresses and our key in it."""
        text = block("config/README.md", f"tested: {name}")
        for written, ours in (
            ("127.0.0.1:8787", self.tcp),
            ("localhost:8443", self.tls),
            ("/run/rtpipe/rtpipe.sock", str(self.unix)),
            ('"…"', f'"{KEY}"'),
        ):
            text = text.replace(written, ours)
        return text


@dataclass(frozen=True)
class Scene:
    """The same model at two places, and a recorder before it."""

    model: Place
    gateway: Place
    recorder: Recorder
    log: Log


@asynccontextmanager
async def scene(origin: str) -> AsyncIterator[Scene]:
    """A model and a daemon, each a process of its own; the daemon must end well."""
    with tempfile.TemporaryDirectory(prefix="rtpipe-clients-") as name:
        folder = Path(name)
        tls = folder / "tls"
        await trio.run_process(
            [sys.executable, "-m", "rtpipe.cli.main", "dev-cert", str(tls)], capture_stdout=True
        )
        async with _model(folder) as model:
            recorder = Recorder(model)
            local = folder / "model.sock"
            async with listening(recorder, local, tls / "server.pem", tls / "server-key.pem") as (
                plain,
                secured,
            ):
                file = folder / "rtpipe.toml"
                file.write_text(_config(folder, origin, plain))
                async with running(file) as daemon:
                    tcp, safe = (part.split("/")[2] for part in daemon.out.split() if part.startswith("ws"))
                    yield Scene(
                        model=Place(f"127.0.0.1:{plain}", f"localhost:{secured}", local, tls / "ca.pem"),
                        gateway=Place(
                            tcp,
                            f"localhost:{safe.rpartition(':')[2]}",
                            folder / "rtpipe.sock",
                            tls / "ca.pem",
                        ),
                        recorder=recorder,
                        log=Log(folder / "log"),
                    )


def material() -> str:
    """What the turns are made of, as JSON."""
    spoken = silence(400) + tone(600) + silence(800)
    return json.dumps(
        {
            "key": KEY,
            "model": MODEL,
            "audio": base64.b64encode(tone(500)).decode(),
            "speech": base64.b64encode(spoken).decode(),
            "image": png(640, 480),
        }
    )


@asynccontextmanager
async def _model(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """``rtpipe sim``, which knows the client's key and the gateway's."""
    keys = folder / "keys"
    keys.write_text(f"{KEY}\n{UPSTREAM_KEY}\n")
    command = [sys.executable, "-m", "rtpipe.cli.main", "sim", "--port", "0", "--pace", PACE, "--seed", "1"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            _process, [*command, "--api-key-file", str(keys), "--log", str(folder / "log")]
        )
        said = await process.stdout.receive_some()
        host, _, port = said.decode().split("ws://")[1].partition("/")[0].rpartition(":")
        yield host, int(port)
        nursery.cancel_scope.cancel()


async def _process(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(command, stdout=subprocess.PIPE, task_status=task_status)


def _config(folder: Path, origin: str, model: int) -> str:
    more = f"""
[[listen]]
name = "tls"
address = "127.0.0.1:0"
tls = {{ certificate = "{folder}/tls/server.pem", key = "{folder}/tls/server-key.pem" }}

[[listen]]
address = "unix:{folder}/rtpipe.sock"
"""
    return config(
        folder / "state",
        f"ws://127.0.0.1:{model}/v1/realtime",
        chain=["auth", "response-lock"],
        listen=f'origins = ["{origin}"]',
        more=more,
    )
