"""HTTP and WebSocket by hand, on either side: what is wrong in rtpipe.transport cannot hide here."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

WAIT_S = 20.0
"""Bounds every wait. Nothing is asserted about how long one takes."""
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Address = tuple[str, int]
Headers = Iterable[tuple[str, str]]


class Ended(Exception):
    """The peer ended the connection: with a close frame's code and reason, else ``eof`` or ``reset``."""

    def __init__(self, code: int | str, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass
class Head:
    """The first line of a message, its headers (names in lower case), and what followed them."""

    line: str
    headers: dict[str, str]
    rest: bytes = b""
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    @property
    def target(self) -> str:
        return self.line.split()[1]

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body."""
        return msgspec.json.decode(self.rest)["error"]


class WebSocket:
    """Frames over a stream whose handshake is done."""

    def __init__(self, stream: trio.SocketStream, head: Head, *, client: bool) -> None:
        self.stream = stream
        self.head = head
        self.masks = client
        self._data = bytearray(head.rest)
        self._inbox: tuple[Any, Any] | None = None

    async def send(self, payload: bytes | str, opcode: int = TEXT, *, fin: bool = True) -> None:
        await self.stream.send_all(frame(payload, opcode, fin=fin, masked=self.masks))

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.send(msgspec.json.encode({"type": kind, **fields}))

    async def receive(self) -> bytes:
        """The next text payload. Raises ``Ended``, for a close frame after answering it."""
        if self._inbox is None:
            return await self._receive()
        with trio.fail_after(WAIT_S):
            payload = await self._inbox[1].receive()
        if isinstance(payload, Ended):
            raise payload
        return payload

    async def read_on(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read and answer whatever comes, until the end; ``receive()`` finds it later."""
        self._inbox = trio.open_memory_channel[bytes | Ended](math.inf)
        task_status.started()
        try:
            while True:
                self._inbox[0].send_nowait(await self._receive(wait_s=math.inf))
        except Ended as ended:
            self._inbox[0].send_nowait(ended)

    async def _receive(self, wait_s: float = WAIT_S) -> bytes:
        whole = b""
        while True:
            opcode, payload, fin = await self.receive_frame(wait_s)
            if opcode == CLOSE:
                with suppress(trio.BrokenResourceError, trio.BusyResourceError):
                    await self.send(payload, CLOSE)
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                raise Ended(code, payload[2:].decode())
            if opcode == PING:
                await self.send(payload, PONG)
            elif opcode in (TEXT, CONTINUATION):
                whole += payload
                if fin:
                    return whole

    async def event(self) -> dict[str, Any]:
        return msgspec.json.decode(await self.receive())

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """The events up to one of this type."""
        seen = [await self.event()]
        while seen[-1]["type"] != kind:
            seen.append(await self.event())
        return seen

    async def ended(self) -> tuple[list[dict[str, Any]], Ended]:
        """The events up to the end, and the end; closes the socket."""
        seen = []
        try:
            while True:
                seen.append(await self.event())
        except Ended as ended:
            await trio.aclose_forcefully(self.stream)
            return seen, ended

    async def receive_frame(self, wait_s: float = WAIT_S) -> tuple[int, bytes, bool]:
        first, second = await self._take(2, wait_s)
        length = second & 127
        if length > 125:
            length = int.from_bytes(await self._take(2 if length == 126 else 8), "big")
        mask = await self._take(4) if second & 128 else b""
        payload = await self._take(length)
        return first & 15, masked_with(mask, payload) if mask else payload, bool(first & 128)

    async def _take(self, count: int, wait_s: float = WAIT_S) -> bytes:
        with trio.fail_after(wait_s):
            while len(self._data) < count:
                try:
                    data = await self.stream.receive_some(1 << 20)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    raise Ended("reset") from None
                if not data:
                    raise Ended("eof")
                self._data += data
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close as one should: both close frames, then the socket."""
        await self.send(struct.pack(">H", code) + reason.encode(), CLOSE)
        await self.ended()

    async def reset(self) -> None:
        """Be gone with an RST."""
        reset(self.stream)


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def frame(payload: bytes | str, opcode: int = TEXT, *, fin: bool = True, masked: bool = True) -> bytes:
    payload = payload.encode() if isinstance(payload, str) else payload
    size, mark = len(payload), 128 if masked else 0
    head = bytes([opcode | (128 if fin else 0)])
    if size < 126:
        head += bytes([mark | size])
    elif size < 1 << 16:
        head += bytes([mark | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mark | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + masked_with(mask, payload)


def masked_with(mask: bytes, payload: bytes) -> bytes:
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


def upgrade(target: str, headers: Headers = (), host: str = "gateway.test") -> bytes:
    """The head of a WebSocket handshake."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def read_head(stream: trio.SocketStream) -> Head:
    """Raises ``Ended`` when the stream ends before the head does."""
    data = b""
    with trio.fail_after(WAIT_S):
        while b"\r\n\r\n" not in data:
            try:
                more = await stream.receive_some(1 << 16)
            except trio.BrokenResourceError:
                raise Ended("reset") from None
            if not more:
                raise Ended("eof")
            data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value) for name, value in (each.split(": ", 1) for each in lines)]
    return Head(line, dict(pairs), rest, pairs)


async def ask(address: Address, raw: bytes) -> Head:
    """Send raw bytes; the whole answer, which ends the connection."""
    stream = await trio.open_tcp_stream(*address)
    async with stream:
        await stream.send_all(raw)
        return await _whole(stream, await read_head(stream))


async def _whole(stream: trio.SocketStream, head: Head) -> Head:
    with trio.fail_after(WAIT_S):
        while more := await stream.receive_some(1 << 16):
            head.rest += more
    return head


async def get(address: Address, target: str, headers: Headers = (), method: str = "GET") -> Head:
    lines = [f"{method} {target} HTTP/1.1", "Host: gateway.test", *(f"{n}: {v}" for n, v in headers)]
    return await ask(address, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")


async def knock(address: Address, target: str, headers: Headers = ()) -> WebSocket | Head:
    """Ask for a WebSocket: it, or the answer that refused it."""
    stream = await trio.open_tcp_stream(*address)
    try:
        await stream.send_all(upgrade(target, headers))
        head = await read_head(stream)
        if head.status == 101:
            return WebSocket(stream, head, client=True)
        head = await _whole(stream, head)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    await stream.aclose()
    return head


async def switch(stream: trio.SocketStream, head: Head, early: bytes = b"") -> WebSocket:
    """Answer a handshake, with *early* in the same packet."""
    accept = base64.b64encode(hashlib.sha1(head.headers["sec-websocket-key"].encode() + _GUID).digest())  # noqa: S324
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + early
    )
    return WebSocket(stream, head, client=False)
