"""kill -9 while clients talk through every first-party plugin, at a socket that outlives the daemon."""

from __future__ import annotations

import random
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.daemon.kit import bearer, config, listening
from tests.daemon.test_sockets import passed, supervised
from tests.daemon.wire import WAIT_S, Address, Ended, WebSocket, knock, read_head
from tests.faults.books import CAPS, Billing, billing, judge, turn
from tests.faults.killed import bytecode

KILLS = 4
CLIENTS = 20
CHAIN = (
    "tracing",
    "auth",
    "image-compressor",
    "http-tools",
    "mcp-tools",
    "tool-dispatcher",
    "input-guardrail",
    "response-lock",
    "cost-governor",
)
CALL = 'call get_weather {"city":"Oslo"}'
"""The simulated model does what it is told."""


async def killed_in_talk() -> str:
    """Nobody is refused, the books are right, and it serves again at once."""
    seen: Counter[str] = Counter()
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as front,
    ):
        address = front.getsockname()
        async with billing() as model, _weather() as weather, trio.open_nursery() as clients:
            file, environment = _written(Path(folder), model.url, weather)
            for number in range(KILLS + 1):
                began = time.monotonic()
                async with supervised(file, environment, strict=(), front=front) as gateway:
                    await gateway.said(" with chain ")
                    if not number:
                        for _ in range(CLIENTS):
                            clients.start_soon(_talk, address, seen)
                    await _served(address)
                    times.append(time.monotonic() - began)
                    await _more(model, random.randrange(20, 60))
                    if number < KILLS:
                        gateway.process.kill()
                        await gateway.process.wait()
                    else:
                        clients.cancel_scope.cancel()
                        gateway.signal()
                        assert await gateway.exited() == 0, gateway.err
                assert "Traceback" not in gateway.err, gateway.err
        books = judge(Path(folder) / "state", model.bills)
    unexpected = seen.keys() - {"completed", "eof", "reset"}
    assert not unexpected, seen
    return (
        f"{KILLS} kills, 0 refused, {seen['completed']} answers; served {max(times[1:]):.2f} s after; {books}"
    )


async def _talk(address: Address, seen: Counter[str]) -> None:
    """One conversation after the other, each until its connection is lost."""
    while True:
        try:
            app = await knock(address, "/v1/realtime", bearer())
        except OSError as exc:
            seen[f"refused: {exc}"] += 1
            return
        except Ended as ended:  # accepted by a daemon that was killed then
            seen[str(ended.code)] += 1
            continue
        if not isinstance(app, WebSocket):
            seen[f"{app.status} {app.error}"] += 1
            return
        said = ""
        try:
            while said in ("", "completed"):
                said = await turn(app, random.choice(("Good morning.", CALL)))
                seen[said] += 1
        finally:
            await trio.aclose_forcefully(app.stream)


async def _served(address: Address) -> None:
    answer = await knock(address, "/v1/realtime", bearer())
    assert isinstance(answer, WebSocket), answer
    await trio.aclose_forcefully(answer.stream)


async def _more(model: Billing, count: int) -> None:
    """Until the model has sent so many more bills."""
    enough = len(model.bills) + count
    with trio.fail_after(WAIT_S):
        while len(model.bills) < enough:  # noqa: ASYNC110 - the model counts, it does not tell
            await trio.sleep(0.005)


@asynccontextmanager
async def _weather() -> AsyncIterator[str]:
    """The URL of a tool."""

    async def handler(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"clear"')

    async with listening(handler) as url:
        yield url.replace("ws://", "http://")


def _written(folder: Path, model: str, weather: str) -> tuple[Path, dict[str, str]]:
    tool = f'[plugins.http-tools.tools.get_weather]\nurl = "{weather}"\ndescription = "The weather."\n'
    file = folder / "rtpipe.toml"
    file.write_text(config(folder / "state", model, chain=CHAIN, more=CAPS + tool))
    return passed(file), bytecode(folder)
