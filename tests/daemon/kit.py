"""Daemons to test, as processes and in the test's own, and upstreams that do as they are told."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import trio

from rtpipe.daemon import daemon
from rtpipe.daemon.config_load import from_text
from rtpipe.sim import SimOptions, serve
from tests.daemon.wire import (
    WAIT_S,
    Address,
    Ended,
    Head,
    Headers,
    WebSocket,
    frame,
    knock,
    read_head,
    switch,
)
from tests.marked import leaked

KEY = "sk-of-the-client"
UPSTREAM_KEY = "sk-of-the-gateway"
KEY_VARIABLE = "TEST_UPSTREAM_KEY"
MODEL = "gpt-realtime-2.1"
PATH = "/v1/realtime"
CREATED = b'{"type":"session.created","event_id":"e_1","session":{"type":"realtime","id":"sess_1"}}'


def config(
    state: Path,
    upstream: str = "ws://127.0.0.1:9/v1/realtime",
    *,
    chain: Sequence[str] = ("auth",),
    listen: str = "",
    more: str = "",
    key: str = KEY,
) -> str:
    """A configuration; *listen* is added to the listener's table, *more* at the end.

    What a scripted model never finishes is not waited for.
    """
    if "[limits]\n" not in more:
        more += "\n[limits]\n"
    more = more.replace("[limits]\n", "[limits]\nbill_timeout_s = 0.1\n")
    auth = f'[[plugins.auth.keys]]\nid = "app"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
    return f"""\
chain = {msgspec.json.encode(list(chain)).decode()}
state_dir = "{state}"

[[listen]]
address = "127.0.0.1:0"
{listen}

[[upstream]]
name = "model"
kind = "sim"
url = "{upstream}"
api_key = {{ env = "{KEY_VARIABLE}" }}
default_model = "{MODEL}"
models = {{ "old-model" = "new-model" }}

{auth if "auth" in chain else ""}
{more}
"""


def bearer(key: str = KEY) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key}")]


async def refused(address: Address, target: str = PATH, headers: Headers | None = None) -> Head:
    """The answer to a handshake that must not succeed."""
    answer = await knock(address, target, bearer() if headers is None else headers)
    if isinstance(answer, WebSocket):
        await trio.aclose_forcefully(answer.stream)
        raise AssertionError("the handshake succeeded")
    return answer


@asynccontextmanager
async def client(
    address: Address, target: str = PATH, headers: Headers | None = None
) -> AsyncIterator[WebSocket]:
    """A client in session, gone without a word at the end."""
    answer = await knock(address, target, bearer() if headers is None else headers)
    assert isinstance(answer, WebSocket), (answer.line, answer.rest)
    try:
        yield answer
    finally:
        await trio.aclose_forcefully(answer.stream)


# --- daemons ------------------------------------------------------------------------------------------------


class Process:
    """A daemon in a process of its own, and what it said so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self.told_to_stop = False
        self._heard = trio.lowlevel.ParkingLot()

    @property
    def address(self) -> Address:
        """Of the first listener."""
        place = self.out.split("ws://", 1)[1].partition("/")[0]
        host, _, port = place.rpartition(":")
        return host, int(port)

    @property
    def log(self) -> list[str]:
        return self.err.splitlines()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def listen(self, name: str, stream: trio.abc.ReceiveStream) -> None:
        async for data in stream:
            setattr(self, name, getattr(self, name) + data.decode())
            self._heard.unpark_all()

    async def said(self, text: str, times: int = 1) -> None:
        """Wait until it has said something."""
        with trio.fail_after(WAIT_S):
            while (self.out + self.err).count(text) < times:
                await self._heard.park()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.told_to_stop = True
        self.process.send_signal(number)

    async def exited(self) -> int:
        with trio.fail_after(WAIT_S):
            return await self.process.wait()


@asynccontextmanager
async def started(
    file: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    launcher: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    strict: Sequence[str] = ("-X", "dev", "-W", "error"),
) -> AsyncIterator[Process]:
    """A daemon process, perhaps not ready yet and perhaps never; killed at the end if it still runs.

    *launcher* is a command that executes the one it is given; it finds the descriptors *pass_fds*. *strict*
    are the interpreter's options; without them it is as fast as for an operator.
    """
    python = [*launcher, sys.executable, *strict]
    command = [*python, "-m", "rtpipe.cli.main", "run", "--config", str(file)]
    env = {**os.environ, KEY_VARIABLE: UPSTREAM_KEY, **(environment or {})}
    process = await trio.lowlevel.open_process(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, pass_fds=pass_fds
    )
    told = Process(process)
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr, trio.open_nursery() as nursery:
        nursery.start_soon(told.listen, "out", process.stdout)
        nursery.start_soon(told.listen, "err", process.stderr)
        try:
            yield told
        except BaseException as exc:
            exc.add_note(f"The daemon said:\n{told.err}")
            raise
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    shown = leaked(file, told.out + told.err)
    assert not shown, sorted(set(shown))


@asynccontextmanager
async def running(
    file: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A daemon process that serves; at the end SIGTERM must end it with 0 and without a complaint."""
    async with started(file, *arguments, environment=environment) as told:
        await told.said(" with chain ")
        yield told
        if not told.told_to_stop:
            told.signal()
        assert await told.exited() == 0, told.err
    assert "Traceback" not in told.err, told.err
    assert "Exception ignored" not in told.err, told.err


async def failed(file: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """What a daemon says that cannot start: its lines on stderr. It exits with 1 and says nothing else."""
    async with started(file, *arguments, environment=environment) as told:
        assert await told.exited() == 1, told.err
    assert told.out == ""
    return told.log


@dataclass
class InProcess:
    """A daemon in the test's own process."""

    process: daemon.Process
    addresses: list[Address] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return self.addresses[0]


@asynccontextmanager
async def in_process(text: str) -> AsyncIterator[InProcess]:
    """A daemon in this process, cancelled at the end."""
    loaded = from_text(text, "test.toml")
    send, receive = trio.open_memory_channel[daemon.Ready](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(daemon.run, loaded, ready=send.send_nowait))
        with trio.fail_after(WAIT_S):
            ready = await receive.receive()
        places = [url.split("//")[1].partition("/")[0].rpartition(":") for url in ready.addresses]
        yield InProcess(ready.process, [(host, int(port)) for host, _, port in places])
        nursery.cancel_scope.cancel()


# --- upstreams ----------------------------------------------------------------------------------------------

Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """The WebSocket URL of a server of the test's own."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await handler(stream)
        except (Ended, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, handle, [listener]))
        yield f"ws://127.0.0.1:{port}{PATH}"
        nursery.cancel_scope.cancel()


@dataclass
class Model:
    """The upstream's side of each session, in the order they were dialled."""

    url: str
    _channel: trio.MemoryReceiveChannel[WebSocket]

    async def next(self) -> WebSocket:
        with trio.fail_after(WAIT_S):
            return await self._channel.receive()


@asynccontextmanager
async def scripted(greeting: bytes = CREATED) -> AsyncIterator[Model]:
    """An upstream that greets and then does what the test does with ``next()``."""
    send, receive = trio.open_memory_channel[WebSocket](1000)

    async def handler(stream: trio.SocketStream) -> None:
        socket = await switch(stream, await read_head(stream), frame(greeting, masked=False))
        async with trio.open_nursery() as nursery:
            # Only once it reads: receive() must find the payloads here, not read them itself.
            await nursery.start(socket.read_on)
            await send.send(socket)
        await trio.sleep_forever()  # the test closes it, or does not

    async with listening(handler) as url:
        yield Model(url, receive)


@asynccontextmanager
async def simulated(**options: object) -> AsyncIterator[str]:
    """The URL of a simulated model."""
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(serve, SimOptions(**{"pace": 0, **options}))
        yield f"ws://{host}:{port}{PATH}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def meeting(
    gateway: Process | InProcess, model: Model, target: str = PATH, headers: Headers | None = None
) -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """A client and the upstream's side of its session, the greeting behind them."""
    async with client(gateway.address, target, headers) as app:
        upstream = await model.next()
        assert await app.receive() == CREATED
        yield app, upstream
