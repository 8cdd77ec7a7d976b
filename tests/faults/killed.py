"""kill -9, again and again under load: how soon it serves again, and whether what it kept is there."""

from __future__ import annotations

import random
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import trio

from tests.daemon.kit import config, started
from tests.daemon.wire import WAIT_S, Address, Ended, ask

ROUNDS = 5
KEEPER = '''
from rtpipe import Plugin, Response, Route

class Keeper(Plugin[None, None]):
    """Keeps what is posted, and answers once it is kept."""

    async def startup(self):
        after = ""
        while found := await self.store.scan("", after=after):
            assert all(value == key.encode() * 100 for key, value in found.items()), "torn"
            after = max(found)

    def routes(self):
        async def keep(request, body):
            await self.store.put(body.decode(), body * 100)
            return Response(200, {})

        async def kept(request, body):
            return Response(200 if await self.store.get(body.decode()) else 404, {})

        return [Route("POST", "/keep", keep, access="open"), Route("POST", "/kept", kept, access="open")]
'''


async def killed() -> str:
    """Restarted at the same address, as a service manager would."""
    acknowledged: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as reserved:
        address = reserved.getsockname()
        reserved.close()
        file, environment = _written(Path(folder), address)
        for number in range(ROUNDS):
            began = time.monotonic()
            begin = started(file, environment=environment, strict=())
            async with begin as gateway, trio.open_nursery() as load:
                await gateway.said(" with chain ")
                if number:  # the first start compiles, as an installation does
                    slowest = max(slowest, time.monotonic() - began)
                assert "torn" not in gateway.err
                for worker in range(10):
                    load.start_soon(_keep, address, f"{number}.{worker}", acknowledged)
                enough = len(acknowledged) + random.randrange(20, 60)
                with trio.fail_after(WAIT_S):
                    while len(acknowledged) < enough:  # noqa: ASYNC110 - the daemon is what is watched
                        await trio.sleep(0.001)
                gateway.process.kill()
                await gateway.process.wait()
                load.cancel_scope.cancel()
        async with started(file, environment=environment) as gateway:
            await gateway.said(" with chain ")
            lost = [key for key in acknowledged if (await _post(address, "/kept", key)) != 200]
    assert not lost, lost
    return f"{ROUNDS} kills, {len(acknowledged)} acknowledged records, all there; up after {slowest:.1f} s"


def _written(folder: Path, address: Address) -> tuple[Path, dict[str, str]]:
    (folder / "test_plugin_keeper.py").write_text(KEEPER)
    info = folder / "test_plugin_keeper-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: test_plugin_keeper\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rtpipe.plugins]\nkeeper = test_plugin_keeper:Keeper\n")
    file = folder / "rtpipe.toml"
    text = config(folder / "state", chain=("auth", "keeper"))
    file.write_text(text.replace("127.0.0.1:0", f"{address[0]}:{address[1]}"))
    path = ":".join([str(folder), *filter(None, sys.path)])
    return file, {"PYTHONPATH": path, **bytecode(folder)}


def bytecode(folder: Path) -> dict[str, str]:
    """Have a daemon keep what it compiles there, whatever is said here: an installed one finds it so."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "pycache")}


async def _keep(address: Address, name: str, acknowledged: list[str]) -> None:
    with suppress(OSError, Ended, trio.BrokenResourceError):
        for number in range(1_000_000):
            if await _post(address, "/keep", f"{name}.{number}") == 200:
                acknowledged.append(f"{name}.{number}")  # noqa: PERF401 - others are told as it grows


async def _post(address: Address, path: str, body: str) -> int:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return (await ask(address, head.encode())).status
