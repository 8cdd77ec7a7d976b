"""Stands in a way that WebSockets take, carries their bytes, and cuts one of them at one event boundary."""

import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import trio

Leg = Literal["client", "upstream"]
Kind = Literal["rst", "fin", "hole"]
KINDS: tuple[Kind, ...] = ("rst", "fin", "hole")
MODEL = "gpt-realtime-2.1-"
"""What the model of every call begins with; the rest is the call's name, on both legs."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 1 << 16


@dataclass
class Cut:
    """One call, and where it is cut: behind so many events, in either direction, of one leg's first
    connection. Without a kind nowhere."""

    name: str
    leg: Leg = "client"
    kind: Kind | None = None
    boundary: int = 0
    counts: bool = True
    """Whether its client says which event it had last."""
    done: bool = False
    passed: dict[Leg, int] = field(default_factory=lambda: {"client": 0, "upstream": 0})
    """Events of the first connection of each leg."""

    def is_due(self, leg: Leg) -> bool:
        return not self.done and leg == self.leg and self.passed[leg] >= self.boundary


class Way:
    """To *target*, for the calls that are known by the model they ask for."""

    def __init__(self, leg: Leg, target: tuple[str, int], calls: dict[str, Cut]) -> None:
        self._leg = leg
        self._target = target
        self._calls = calls
        self._seen: set[str] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Carry one connection to its end."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := await stream.receive_some(_CHUNK)):
                await stream.aclose()
                return
            head += data
        call = self._call_of(head)
        try:
            async with stream, await trio.open_tcp_stream(*self._target) as target:
                await target.send_all(head)
                await _Link(self._leg, call, stream, target).carry()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one side went without a word, and so the other was closed

    def _call_of(self, head: bytes) -> Cut | None:
        """The call whose first connection this is."""
        query = parse_qs(urlsplit(head.split(b" ")[1].decode()).query)
        name = query.get("model", [""])[0].removeprefix(MODEL)
        call = self._calls.get(name)
        if call is None or name in self._seen:
            return None
        self._seen.add(name)
        return call


class _Link:
    def __init__(
        self, leg: Leg, call: Cut | None, client: trio.SocketStream, server: trio.SocketStream
    ) -> None:
        self._leg = leg
        self._call = call
        self._ends = (client, server)
        self._one_at_a_time = trio.Lock()
        self._how: Kind | None = None

    async def carry(self) -> None:
        client, server = self._ends
        async with trio.open_nursery() as both:
            both.start_soon(self._carry, client, server, _Events(has_head=False), both.cancel_scope)
            both.start_soon(self._carry, server, client, _Events(has_head=True), both.cancel_scope)

    async def _carry(
        self, source: trio.SocketStream, sink: trio.SocketStream, events: "_Events", scope: trio.CancelScope
    ) -> None:
        async for data in source:
            for piece, is_event in events.of(data):
                async with self._one_at_a_time:
                    if self._how is None:
                        await sink.send_all(piece)
                        await self._passed(is_event)
            if self._how == "hole":
                await trio.sleep_forever()  # nobody is told; it ends with the test
        if self._how is None:
            scope.cancel()

    async def _passed(self, is_event: bool) -> None:
        call = self._call
        if call is None:
            return
        call.passed[self._leg] += is_event
        if call.kind is None or not call.is_due(self._leg):
            return
        call.done = True
        self._how = call.kind
        for end in self._ends:
            if call.kind == "rst":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                await trio.aclose_forcefully(end)
            elif call.kind == "fin":
                await end.send_eof()  # what the others still say is read, and goes nowhere


class _Events:
    """Bytes of one direction in pieces: each frame one, and an event, but for control frames."""

    def __init__(self, *, has_head: bool) -> None:
        self._buffer = b""
        self._head = has_head
        self._frames = not has_head

    def of(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        self._buffer += data
        while size := self._size():
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            is_event = self._frames and piece[0] & 0x80 != 0 and piece[0] & 0x0F < 8
            if self._head:
                self._head, self._frames = False, b" 101 " in piece.partition(b"\r\n")[0]
            yield piece, is_event

    def _size(self) -> int:
        """Of the next piece; 0 while it is not there as a whole."""
        buffer = self._buffer
        if self._head:
            return buffer.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in buffer else 0
        if not self._frames or len(buffer) < 2:
            return 0 if self._frames else len(buffer)
        length, start = buffer[1] & 0x7F, 2
        if length >= 126:
            start += 2 if length == 126 else 8
            if len(buffer) < start:
                return 0
            length = int.from_bytes(buffer[2:start], "big")
        size = start + (4 if buffer[1] & 0x80 else 0) + length
        return size if len(buffer) >= size else 0


@asynccontextmanager
async def opened(leg: Leg, target: tuple[str, int], calls: dict[str, Cut]) -> AsyncIterator[int]:
    """The port of a way to *target*."""
    way = Way(leg, target, calls)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, way.serve, [listener]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
