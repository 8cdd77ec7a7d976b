"""JSON lines and the admin socket by hand, and daemons whose configuration can be read again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from rtpipe.daemon import daemon
from rtpipe.daemon.config_load import load
from tests.daemon.wire import WAIT_S, Address, Head, read_head


class Lines:
    """One JSON-lines connection from the peer's side."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._data = b""

    async def send(self, *messages: dict[str, Any] | bytes) -> None:
        lines = [m if isinstance(m, bytes) else msgspec.json.encode(m) + b"\n" for m in messages]
        await self.stream.send_all(b"".join(lines))

    async def tell(self, kind: str, **fields: Any) -> None:
        await self.send({"type": kind, **fields})

    async def line(self) -> bytes:
        """The next line; nothing at the end."""
        with trio.fail_after(WAIT_S):
            while b"\n" not in self._data:
                data = await self.stream.receive_some(1 << 16)
                if not data:
                    return b""
                self._data += data
        line, _, self._data = self._data.partition(b"\n")
        return line

    async def next(self) -> dict[str, Any]:
        return msgspec.json.decode(await self.line())

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """The messages up to one of this type."""
        seen = [await self.next()]
        while seen[-1]["type"] != kind:
            seen.append(await self.next())
        return seen

    async def rest(self) -> list[dict[str, Any]]:
        """Everything up to the end."""
        seen = []
        while line := await self.line():
            seen.append(msgspec.json.decode(line))
        return seen


@asynccontextmanager
async def speaking(place: Path, **hello: Any) -> AsyncIterator[Lines]:
    """A connection that has said its hello."""
    async with await trio.open_unix_socket(str(place)) as stream:
        lines = Lines(stream)
        await lines.tell("rtpipe.hello", **hello)
        yield lines


async def ask(place: Path, target: str, method: str = "GET") -> Head:
    """One request to the admin socket, and the whole answer."""
    async with await trio.open_unix_socket(str(place)) as stream:
        await stream.send_all(f"{method} {target} HTTP/1.1\r\nHost: rtpipe\r\n\r\n".encode())
        head = await read_head(stream)
        with trio.fail_after(WAIT_S):
            while more := await stream.receive_some(1 << 16):
                head.rest += more
        return head


async def asked(place: Path, target: str, method: str = "GET") -> dict[str, Any]:
    """The JSON of an answer that must be a good one."""
    answer = await ask(place, target, method)
    assert answer.status == 200, answer.rest
    assert answer.headers["content-type"] == "application/json"
    return msgspec.json.decode(answer.rest)


@dataclass
class Reloadable:
    """A daemon in the test's own process, and the file it was loaded from."""

    process: daemon.Process
    file: Path
    address: Address

    def change(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


@asynccontextmanager
async def reloadable(file: Path) -> AsyncIterator[Reloadable]:
    """A daemon that can read its file again, cancelled at the end."""
    send, receive = trio.open_memory_channel[daemon.Ready](1)
    again = partial(load, file)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(daemon.run, again(), ready=send.send_nowait, read_again=again))
        with trio.fail_after(WAIT_S):
            ready = await receive.receive()
        first = next(url for url in ready.addresses if url.startswith("ws"))
        host, _, port = first.split("//")[1].partition("/")[0].rpartition(":")
        yield Reloadable(ready.process, file, (host, int(port)))
        nursery.cancel_scope.cancel()
