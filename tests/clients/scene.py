"""The daemon that the clients talk to: three listeners, a key, the simulated model."""

import base64
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.daemon.kit import KEY, config, running
from tests.docs.pages import block
from tests.sim.kit import png, tone


@dataclass
class Scene:
    """Where everything is."""

    folder: Path
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
            ("…", KEY),
        ):
            text = text.replace(written, ours)
        return text


@asynccontextmanager
async def scene(origin: str) -> AsyncIterator[Scene]:
    """A daemon process, which must end well."""
    with tempfile.TemporaryDirectory(prefix="rtpipe-clients-") as name:
        folder = Path(name)
        await trio.run_process(
            [sys.executable, "-m", "rtpipe.cli.main", "dev-cert", str(folder / "tls")], capture_stdout=True
        )
        file = folder / "rtpipe.toml"
        file.write_text(_config(folder, origin))
        async with running(file, "--sim", "--sim-pace", "0") as process:
            tcp, tls = (part.split("/")[2] for part in process.out.split() if part.startswith("ws"))
            yield Scene(
                folder=folder,
                tcp=tcp,
                tls=f"localhost:{tls.rpartition(':')[2]}",
                unix=folder / "rtpipe.sock",
                authority=folder / "tls/ca.pem",
            )


def material() -> str:
    """What the turns in JavaScript are made of, as JSON."""
    audio = base64.b64encode(tone(500)).decode()
    return json.dumps({"key": KEY, "audio": audio, "image": png(640, 480)})


def _config(folder: Path, origin: str) -> str:
    more = f"""
[[listen]]
name = "tls"
address = "127.0.0.1:0"
tls = {{ certificate = "{folder}/tls/server.pem", key = "{folder}/tls/server-key.pem" }}

[[listen]]
address = "unix:{folder}/rtpipe.sock"
"""
    chain = ["auth", "response-lock"]
    return config(folder / "state", chain=chain, listen=f'origins = ["{origin}"]', more=more)
