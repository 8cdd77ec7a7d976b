"""What attackers do by the hundred, in a process of their own. ``python -m tests.faults.storms`` reads the
name of a storm and for how long, one a line, and answers when it is over with how often what was done."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import msgspec
import trio

from tests.daemon.kit import CREATED, PATH, bearer, listening
from tests.daemon.lines import Lines, ask
from tests.daemon.wire import PING, Ended, WebSocket, frame, read_head, reset, switch, upgrade

KEY = "sk-of-the-attackers"
MODEL = "hostile"
ADDRESS, GUESSING = "127.0.0.2", "127.0.0.3"
"""Where they come from, and guesses do: what is counted by address is not counted against the others."""
GONE = (Ended, OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
MIB = 1 << 20
_numbers = count()


@dataclass
class Front:
    """Where the gateway is, and what its upstream does to it, by *manner*: ``mute``, ``cut``, ``flood``."""

    port: int = 0
    unix: str = ""
    admin: str = ""
    drop_in: str = ""
    manner: str = "mute"
    done: Counter[str] = field(default_factory=Counter)

    async def serve_model(self, stream: trio.SocketStream) -> None:
        model = await switch(stream, await read_head(stream), frame(CREATED, masked=False))
        if self.manner == "cut":
            await trio.sleep(random.uniform(0, 0.3))
            reset(stream)
            self.done["upstreams cut"] += 1
            return
        async with trio.open_nursery() as nursery:
            if self.manner == "flood":
                nursery.start_soon(_flood, model)
            with suppress(*GONE):
                while await stream.receive_some(MIB):
                    pass
            nursery.cancel_scope.cancel()

    async def connect(self, address: str = ADDRESS) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port, local_address=address)

    @asynccontextmanager
    async def client(
        self, query: str = "", key: str = KEY, address: str = ADDRESS
    ) -> AsyncIterator[WebSocket]:
        """A client in session; raises one of GONE where it is not let in."""
        stream = await self.connect(address)
        try:
            await stream.send_all(upgrade(f"{PATH}?model={MODEL}{query}", bearer(key)))
            head = await read_head(stream)
            if head.status != 101:
                self.done[f"refused {head.status}"] += 1
                raise Ended(head.status)
            yield WebSocket(stream, head, client=True)
        finally:
            await trio.aclose_forcefully(stream)


async def _flood(model: WebSocket) -> None:
    delta = frame(_event("response.output_audio.delta", response_id="r", delta="A" * 60_000), masked=False)
    with suppress(*GONE):
        while True:
            await model.stream.send_all(delta)


def _event(kind: str, **fields: object) -> bytes:
    return msgspec.json.encode({"type": kind, **fields})


APPEND = _event("input_audio_buffer.append", audio="A" * 6400)
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Is anybody there?"}]}


async def resets(front: Front) -> None:
    """Sessions whose client, or whose upstream, is reset at any moment."""
    front.manner = random.choice(("mute", "cut"))
    async with front.client() as app:
        for _ in range(random.randrange(5)):
            await app.send(APPEND)
        await trio.sleep(random.uniform(0, 0.1))
        await app.reset()
    front.done["clients reset"] += 1


async def half_handshakes(front: Front) -> None:
    """Reset, or left open, somewhere in the handshake."""
    raw = upgrade(PATH, bearer(KEY))
    stream = await front.connect()
    await stream.send_all(raw[: random.randrange(len(raw))])
    if random.random() < 0.5:
        reset(stream)
    else:
        with suppress(Ended):
            await read_head(stream)
        await trio.aclose_forcefully(stream)
    front.done["handshakes"] += 1


async def slow_heads(front: Front) -> None:
    """A byte at a time, until it is given up."""
    async with await front.connect() as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            with suppress(*GONE):
                for byte in upgrade(PATH, [("X", "a" * 60_000)]):
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.02)

        nursery.start_soon(drip)
        with suppress(*GONE):
            await read_head(stream)
        nursery.cancel_scope.cancel()
    front.done["heads"] += 1


async def idle_crowd(front: Front) -> None:
    """400 sockets that say nothing."""
    async with trio.open_nursery() as nursery:
        for _ in range(400):
            stream = await front.connect()
            nursery.start_soon(_left_open, stream)
    front.done["sockets"] += 400


async def _left_open(stream: trio.SocketStream) -> None:
    with suppress(*GONE):
        async with stream:
            await read_head(stream)


async def stopped_readers(front: Front) -> None:
    """The upstream says much, the client reads nothing, or hardly anything."""
    front.manner = "flood"
    async with front.client() as app:
        if random.random() < 0.5:
            await trio.sleep(2)
            front.done["stopped"] += 1
        else:
            for _ in range(100):
                await app.stream.receive_some(1000)
                await trio.sleep(0.02)
            front.done["slow"] += 1


async def pings(front: Front) -> None:
    """Whose pongs nobody reads."""
    many = frame("x" * 100, PING) * 500
    async with front.client() as app:
        with trio.move_on_after(1):
            while True:
                await app.stream.send_all(many)
                front.done["pings"] += 500


async def huge_messages(front: Front) -> None:
    """64 MiB in one frame, in fragments, or byte by byte; 15 MiB, which is allowed."""
    manner = random.choice(("one", "fragments", "allowed"))
    async with front.client() as app:
        front.done[f"huge, {manner}"] += 1
        if manner == "one":
            await app.stream.send_all(b"\x81\xff" + (64 * MIB).to_bytes(8, "big") + b"abcd" + bytes(MIB))
        elif manner == "fragments":
            await app.stream.send_all(frame("A" * MIB, fin=False))
            rest = frame("A" * MIB, 0, fin=False)
            for _ in range(63):
                await app.stream.send_all(rest)
        else:
            await app.send(_event("input_audio_buffer.append", audio="A" * (15 * MIB)))
        with trio.move_on_after(1):
            await app.ended()


async def breaches(front: Front) -> None:
    """Frames that break the protocol."""
    for raw in (
        b"\xb3" + frame("x")[1:],
        frame("x", PING, fin=False),
        frame("x" * 126, PING),
        frame((999).to_bytes(2, "big"), 8),
        frame(b'{"type":"\xff"}'),
        frame(b"\x00", 2),
        b"\x01" + frame("x")[1:] + frame("y"),
        b"\x80" * 100,
    ):
        async with front.client() as app:
            await app.stream.send_all(raw)
            await app.ended()
        front.done["breaches"] += 1


GARBAGE = (
    b'{"type":"session.update","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b'{"type":"session.update","a":NaN}',
    b'{"type":"session.update","n":' + b"9" * 5000 + b"}",
    b"[1]",
    b"not JSON",
    b'{"type":"x","type":"y"}',
    b'{"type":"session.update","session":{"a":1,"a":2}}',
    b'{"type":"conversation.item.create","item":{' + b",".join(b'"%d":{}' % n for n in range(5000)) + b"}}",
)


async def garbage(front: Front) -> None:
    """What is no event, or would be read in two ways."""
    async with front.client() as app:
        for text in GARBAGE:
            await app.send(text)
            await app.receive()
            front.done["texts"] += 1


# Each brings as many Python objects as fit into what one message may have.
WIDE = (
    b'{"type":"conversation.item.create","item":[' + b"[]," * (MIB // 32) + b"[]]}",
    b'{"type":"session.update","session":{' + b",".join(b'"%d":{}' % n for n in range(MIB // 32)) + b"}}",
    b'{"type":"odd","a":"' + b"\\u00e9" * (2 * MIB) + b'"}',
)


async def wide_json(front: Front) -> None:
    """Events of many megabytes that are nothing but structure."""
    async with front.client() as app:
        await app.send(random.choice(WIDE))
        front.done["megabytes of structure"] += 12
        with trio.move_on_after(3):
            await app.receive()
            await app.receive()


async def wrong_keys(front: Front) -> None:
    """Guesses."""
    async with front.client(key=f"sk-{random.getrandbits(128):x}", address=GUESSING):
        pass


async def parked(front: Front) -> None:
    """Clients that name their session, are reset, and come back or do not."""
    key = f"&rtpipe_session={random.getrandbits(128):032x}"
    for _ in range(random.randrange(1, 3)):
        async with front.client(key) as app:
            await app.send(APPEND)
            await app.send(_event("conversation.item.create", item=ITEM))
            await app.reset()
        front.done["left with a key"] += 1


async def lines_cut(front: Front) -> None:
    """JSON lines, broken off in mid line."""
    lines = Lines(await trio.open_unix_socket(front.unix))
    async with lines.stream:
        hello = {"type": "rtpipe.hello", "role": "session", "key": KEY, "model": MODEL, "version": 1}
        await lines.send(hello, msgspec.json.encode({"type": "conversation.item.create", "item": ITEM})[:-9])
        await trio.sleep(random.uniform(0, 0.05))
    front.done["lines"] += 1


async def taps_cut(front: Front) -> None:
    """An operator who looks on, and is cut off in mid sentence."""
    front.manner = "flood"
    tap = Lines(await trio.open_unix_socket(front.admin))
    async with tap.stream:
        await tap.tell("rtpipe.hello", role="tap", version=1)
        with suppress(*GONE):
            async with front.client() as app:
                await app.send(APPEND)
                await app.receive()
                await tap.stream.receive_some(5000)
    front.done["taps"] += 1


async def reloads(front: Front) -> None:
    """The configuration is read again while sessions come and go."""
    async with front.client() as app:
        await app.send(APPEND)
        drop_in = f"[plugins.cost-governor.caps]\nmax_events_per_s = {next(_numbers) + 1e6}\n"
        await trio.to_thread.run_sync(Path(front.drop_in).write_text, drop_in)
        await ask(Path(front.admin), "/reload", "POST")
    front.done["reloads"] += 1


STORMS: dict[str, tuple[Callable[[Front], Awaitable[None]], int]] = {
    "resets on both legs": (resets, 20),
    "half-open handshakes": (half_handshakes, 50),
    "slow heads": (slow_heads, 100),
    "idle crowd": (idle_crowd, 1),
    "stopped and slow readers": (stopped_readers, 8),
    "ping floods": (pings, 4),
    "64 MiB messages": (huge_messages, 2),
    "protocol breaches": (breaches, 4),
    "garbage JSON": (garbage, 2),
    "megabytes of structure": (wide_json, 2),
    "wrong keys": (wrong_keys, 20),
    "parked sessions": (parked, 4),
    "JSON lines cut": (lines_cut, 8),
    "taps cut": (taps_cut, 4),
    "reloads": (reloads, 1),
}
"""Each storm, and how many do it at a time."""


async def rage(front: Front, name: str, seconds: float) -> None:
    """One storm: each does it again and again."""
    work, crowd = STORMS[name]
    front.manner = "mute"

    async def again() -> None:
        while True:
            with suppress(*GONE):
                await work(front)
            await trio.lowlevel.checkpoint()

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(crowd):
                nursery.start_soon(again)
    front.manner = "mute"


async def once(front: Front, name: str) -> None:
    """The same, and each does it one time."""
    work, crowd = STORMS[name]

    async def do() -> None:
        with suppress(*GONE):
            await work(front)

    async with trio.open_nursery() as nursery:
        for _ in range(crowd):
            nursery.start_soon(do)
    front.manner = "mute"


async def main() -> None:
    """Say where the upstream is; be told where the gateway is, and then which storms there are to be."""
    front = Front()
    told = trio.wrap_file(sys.stdin)
    async with listening(front.serve_model) as url:
        print(url, flush=True)  # noqa: T201
        front.port, front.unix, front.admin, front.drop_in = json.loads(await told.readline())
        while line := await told.readline():
            name, seconds = json.loads(line)
            front.done.clear()
            await rage(front, name, seconds)
            print(json.dumps(dict(front.done)), flush=True)  # noqa: T201


if __name__ == "__main__":
    trio.run(main)
