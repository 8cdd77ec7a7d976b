"""``python -m tests.faults.herd``: 200 sessions, or so many, of one daemon lose the model at once.

Prints when they dialled again, and what the daemon used before, meanwhile, and afterwards.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from benchmarks.process import Process, free_port
from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY, client, config, started
from tests.daemon.wire import WAIT_S, Address, WebSocket

SESSIONS = 200
ITEMS = 20
"""What each has said before, so that there is something to tell the next model."""
ITEM_CHARS = 2000
APPENDS = 10
APPEND_CHARS = 6400
APPEND_S = 0.1
"""What each says while it may have no model: a second of speech."""
ALL_S = 60.0
TENTHS_S = 0.05


@dataclass
class Herd:
    """What was seen: seconds after the cut, and bytes that were resident."""

    sessions: int
    dials: list[float] = field(default_factory=list)
    before: int = 0
    most: int = 0
    after: int = 0

    def lines(self) -> Iterator[str]:
        shares = [0] * (int(max(self.dials) / TENTHS_S) + 1)
        for dial in self.dials:
            shares[int(dial / TENTHS_S)] += 1
        yield f"{self.sessions} sessions lost the model at once; {len(self.dials)} dials brought all back"
        yield f"dials in each {TENTHS_S:g} s after that: {' '.join(map(str, shares))}"
        each = (self.most - self.before) / self.sessions / 1e3
        yield (
            f"the daemon: {self.before / 1e6:.0f} MB before, {self.most / 1e6:.0f} MB at most, which is "
            f"{each:.0f} kB more a session, {self.after / 1e6:.0f} MB when all had been answered again"
        )


class Road:
    """The way to the model, which can be cut for all at once. Notes when it was taken since then."""

    def __init__(self, model: Address) -> None:
        self._model = model
        self._streams: list[trio.SocketStream] = []
        self._cut_s = 0.0
        self.dials: list[float] = []

    async def serve(self, *, task_status: trio.TaskStatus[Address]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[:2])
        await trio.serve_listeners(self._carry, listeners)

    async def _carry(self, stream: trio.SocketStream) -> None:
        if self._cut_s:
            self.dials.append(trio.current_time() - self._cut_s)
        self._streams.append(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            async with await trio.open_tcp_stream(*self._model) as model, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, stream, model)
                await self._pass_on(model, stream)
                nursery.cancel_scope.cancel()

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)

    def cut(self) -> None:
        """Reset every connection there is."""
        self._cut_s = trio.current_time()
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()


async def herd(sessions: int = SESSIONS) -> Herd:
    """Let it happen. Raises ``trio.TooSlowError`` where a session does not come back."""
    seen = Herd(sessions)
    with trio.fail_after(ALL_S + WAIT_S), tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            port = free_port()
            simulated = [sys.executable, "-m", "rtpipe.cli.main", "sim", "--pace", "0", "--port", str(port)]
            model = Process(simulated, {}, None, Path(folder) / "sim.log")
            stack.callback(model.stop)
            await trio.to_thread.run_sync(model.await_port, port)
            road = Road(("127.0.0.1", port))
            host, port = await nursery.start(road.serve)
            file = Path(folder) / "rtpipe.toml"
            file.write_text(config(Path(folder) / "state", f"ws://{host}:{port}/v1/realtime"))
            gateway = await stack.enter_async_context(started(file, strict=()))
            await gateway.said(" with chain ")
            clients = [await stack.enter_async_context(client(gateway.address)) for _ in range(sessions)]
            for each in clients:
                await nursery.start(each.read_on)
            await _together(clients, _say_much)
            with _peak(gateway.process.pid) as memory:
                seen.before = memory["VmRSS"]
                road.cut()
                await _together(clients, _go_on)
            seen.dials = road.dials
            seen.most, seen.after = memory["VmHWM"], memory["VmRSS"]
            assert gateway.err.count("upstream leg replaced") >= sessions, gateway.err
    return seen


async def _together(clients: list[WebSocket], what: Callable[[WebSocket], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for each in clients:
            nursery.start_soon(what, each)


async def _say_much(each: WebSocket) -> None:
    for number in range(ITEMS):
        await _say(each, f"item_{number}", "x" * ITEM_CHARS)
    await each.tell("response.create", response={"output_modalities": ["text"]})
    await each.until("response.done")


async def _go_on(each: WebSocket) -> None:
    """Speak on, write, and have an answer."""
    for _ in range(APPENDS):
        await each.tell("input_audio_buffer.append", audio="A" * APPEND_CHARS)
        await trio.sleep(APPEND_S)
    await _say(each, "last", "and now")
    await each.tell("response.create", response={"output_modalities": ["text"]})
    (*_, done) = await each.until("response.done")
    assert done["response"]["status"] == "completed", done


async def _say(each: WebSocket, item_id: str, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"id": item_id, "type": "message", "role": "user", "content": content}
    await each.tell("conversation.item.create", item=item)


@contextmanager
def _peak(pid: int) -> Iterator[dict[str, int]]:
    """What a process uses now, in bytes (``VmRSS``), and, at the end, what then and at most (``VmHWM``)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts anew
    memory = _memory(pid)
    yield memory
    memory |= _memory(pid)


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = (line.split() for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in fields}


def main() -> None:
    os.environ[KEY_VARIABLE] = UPSTREAM_KEY
    seen = trio.run(herd, int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS)
    for line in seen.lines():
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
