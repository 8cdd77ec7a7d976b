"""Stands before the simulated model and writes down what each session says, in both directions."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

Event = dict[str, Any]

ENDED_S = 20
"""The daemon closes an upstream 10 s after its client at the latest."""
_CHUNK = 1 << 16


@dataclass
class Heard:
    """One session at the model."""

    received: list[Event] = field(default_factory=list)
    sent: list[Event] = field(default_factory=list)


class Recorder:
    """Carries the bytes to the model and back unchanged, and reads them as they pass."""

    def __init__(self, model: tuple[str, int]) -> None:
        self._model = model
        self._heard: list[Heard] = []
        self._open = 0
        self._closed = trio.lowlevel.ParkingLot()

    async def take(self) -> list[Heard]:
        """The sessions since the last time, in the order they began. Waits until all have ended."""
        with trio.fail_after(ENDED_S):
            while self._open:
                await self._closed.park()
        heard, self._heard = self._heard, []
        return [each for each in heard if each.sent and each.sent[0]["type"] == "session.created"]

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Carry one connection to its end."""
        self._open += 1
        session = Heard()
        self._heard.append(session)
        try:
            async with stream, await trio.open_tcp_stream(*self._model) as model, trio.open_nursery() as both:
                up = _Direction(ConnectionType.SERVER, session.received)
                down = _Direction(ConnectionType.CLIENT, session.sent)
                both.start_soon(_carry, stream, model, up, both.cancel_scope)
                both.start_soon(_carry, model, stream, down, both.cancel_scope)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one side went without a word, and so the other was closed
        finally:
            self._open -= 1
            self._closed.unpark_all()


class _Direction:
    """Reads one half of a connection: a head of HTTP, then frames, unless the head refuses them."""

    def __init__(self, kind: ConnectionType, events: list[Event]) -> None:
        self._connection = Connection(kind)
        self._events = events
        self._head = b""
        self._frames: bool | None = None
        self._text = ""

    def read(self, data: bytes) -> None:
        if self._frames is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if end:
                self._frames = not head.startswith(b"HTTP/1.1") or b" 101 " in head.partition(b"\r\n")[0]
        if self._frames and data:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, TextMessage):
                    self._text += event.data
                    if event.message_finished:
                        self._events.append(json.loads(self._text))
                        self._text = ""


async def _carry(
    source: trio.abc.Stream, sink: trio.abc.Stream, direction: _Direction, scope: trio.CancelScope
) -> None:
    while data := await source.receive_some(_CHUNK):
        direction.read(data)
        await sink.send_all(data)
    scope.cancel()


@asynccontextmanager
async def listening(
    recorder: Recorder, unix: Path, certificate: Path, key: Path
) -> AsyncIterator[tuple[int, int]]:
    """Serve over TCP, TLS and a Unix socket. The ports of the first two."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (secured,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    local = trio.socket.socket(trio.socket.AF_UNIX)
    await local.bind(str(unix))
    local.listen()
    listeners = [plain, trio.SSLListener(secured, context, https_compatible=True), trio.SocketListener(local)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, recorder.serve, listeners)
        yield plain.socket.getsockname()[1], secured.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
