"""What a hostile client or a broken network does, done to a real daemon. Each returns what was seen."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from resource import getpagesize

import trio

from tests.daemon.kit import CREATED, Model, Process, bearer, client, refused
from tests.daemon.wire import (
    CLOSE,
    PING,
    Address,
    Ended,
    Headers,
    WebSocket,
    ask,
    frame,
    get,
    read_head,
    reset,
    upgrade,
)


@dataclass
class Scene:
    """A daemon in a process of its own, and the upstream that it dials."""

    gateway: Process
    model: Model

    @property
    def address(self):
        return self.gateway.address


Case = Callable[[Scene], Awaitable[str]]
_numbers = count()
HEAD_S = 1.0
"""``handshake_timeout_s`` of the daemon in these scenes."""
CONFIG = f"""
[limits]
handshake_timeout_s = {HEAD_S}
connect_timeout_s = 2
write_deadline_s = 1
max_message_bytes = 1_048_576
"""


async def lives(scene: Scene) -> None:
    """A clean session comes and goes, whatever else is going on."""
    async with met(scene) as (app, upstream):
        await app.tell("still.here")
        assert (await upstream.event())["type"] == "still.here"


@asynccontextmanager
async def met(
    scene: Scene, address: Address | None = None, headers: Headers | None = None
) -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """A client in session, and the upstream's side of it, past those that other cases have left."""
    target = f"/v1/realtime?model=m{next(_numbers)}"
    async with client(address or scene.address, target, headers) as app:
        while (upstream := await scene.model.next()).head.target != target:
            pass
        assert await app.receive() == CREATED
        yield app, upstream


async def silent(scene: Scene) -> str:
    async with await trio.open_tcp_stream(*scene.address) as stream:
        status = (await read_head(stream)).status
    assert status == 408
    return f"{status} after {HEAD_S:g} s, the limit in this scene"


async def trickle(scene: Scene) -> str:
    """The head a byte at a time: one deadline for all of it."""
    async with await trio.open_tcp_stream(*scene.address) as stream, trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in upgrade("/v1/realtime", [("X", "a" * 60_000)]):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.02)

        nursery.start_soon(_unless_broken, drip)
        seen = "closed"
        with suppress(Ended):
            seen = str((await read_head(stream)).status)
        nursery.cancel_scope.cancel()
    return f"{seen} at the limit"


async def _unless_broken(work: Callable[[], Awaitable[None]]) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await work()


async def idle_crowd(scene: Scene) -> str:
    before = scene.gateway.descriptors()
    many = [await trio.open_tcp_stream(*scene.address) for _ in range(400)]
    await lives(scene)
    for stream in many:
        await trio.aclose_forcefully(stream)
    with trio.fail_after(20):
        while scene.gateway.descriptors() > before + 2:  # noqa: ASYNC110 - /proc tells nobody
            await trio.sleep(0.01)
    return "a client got in meanwhile; the descriptors came back"


async def long_heads(scene: Scene) -> str:
    found = []
    for raw in (
        upgrade("/v1/realtime", [(f"x{n}", "a" * 100) for n in range(2000)]),
        upgrade("/v1/realtime", [("x", "a" * 65536)]),
        upgrade("/v1/realtime", [(f"x{n}", "") for n in range(200)]),
        upgrade(f"/v1/realtime?model={'a' * 65536}"),
    ):
        answer = await ask(scene.address, raw)
        assert answer.error["message"]
        found.append(answer.status)
    assert found == [431, 431, 431, 414]
    return "431, 431, 431, 414, each with a body"


async def no_handshake(scene: Scene) -> str:
    raw = upgrade("/v1/realtime")
    found = [(await get(scene.address, "/v1/realtime")).status]
    for old, new in (
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 12"),
        (b"Sec-WebSocket-Key:", b"X-Key:"),
        (b"Host:", b"X-Host:"),
        (b"Host:", b"Host: other\r\nHost:"),
    ):
        found.append((await ask(scene.address, raw.replace(old, new))).status)
    assert found == [426, 426, 400, 400, 400]
    return ", ".join(map(str, found))


async def unknown_paths(scene: Scene) -> str:
    found = [(await get(scene.address, path)).status for path in ("/none", "/v1/realtime/../../etc/passwd")]
    assert found == [404, 404]
    return "404, 404"


async def foreign_origin(scene: Scene) -> str:
    answer = await refused(scene.address, headers=[*bearer(), ("Origin", "https://evil.example")])
    assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
    return "403 origin_not_allowed"


async def no_key(scene: Scene) -> str:
    found = [(await refused(scene.address, headers=headers)).status for headers in ([], bearer("sk-wrong"))]
    assert found == [401, 401]
    assert "sk-wrong" not in scene.gateway.out + scene.gateway.err
    return "401, 401; the key is in no output"


async def bad_frames(scene: Scene) -> str:
    breaches = (
        b"\xb3" + frame("x")[1:],  # reserved opcode and bits
        frame("x", PING, fin=False),
        frame("x" * 126, PING),
        frame((999).to_bytes(2, "big"), CLOSE),
    )
    found = [await _ended_by(scene, raw) for raw in breaches]
    assert found == [1002] * 4
    return "close 1002, four times"


async def _ended_by(scene: Scene, raw: bytes) -> int | str:
    async with client(scene.address) as app:
        with suppress(trio.BrokenResourceError):
            await app.stream.send_all(raw)
        return (await app.ended())[1].code


async def bad_utf8(scene: Scene) -> str:
    code = await _ended_by(scene, frame(b'{"type":"\xff"}'))
    assert code == 1007
    return "close 1007"


async def too_long(scene: Scene) -> str:
    code = await _ended_by(scene, frame(b" " * 2_000_000)[:1_200_000])
    assert code == 1009
    return "close 1009 at the limit, 1 MiB in this scene"


async def ping_flood(scene: Scene) -> str:
    async with client(scene.address) as app:
        with trio.move_on_after(1), suppress(trio.BrokenResourceError):
            while True:
                await app.stream.send_all(frame("x" * 100, PING) * 500)
        await lives(scene)
    return "others live; pongs that nobody reads take no memory"


async def compressed(scene: Scene) -> str:
    offer = [*bearer(), ("Sec-WebSocket-Extensions", "permessage-deflate")]
    async with client(scene.address, headers=offer) as app:
        assert "sec-websocket-extensions" not in app.head.headers
        await app.stream.send_all(bytes([frame("x")[0] | 0x40]) + frame("x")[1:])
        code = (await app.ended())[1].code
    assert code == 1002
    return "not negotiated; used all the same: close 1002"


async def odd_json(scene: Scene) -> str:
    """Each is answered with an error, and the session goes on."""
    texts = [
        '{"type":"session.update","a":' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"type":"session.update","a":NaN}',
        '{"type":"session.update","a":1e999}',
        "[1]",
        "{}",
        '{"type":7,"event_id":"mine"}',
        "not JSON",
        '{"type":"x","type":"y"}',
        '{"type":"session.update","session":{"a":1,"a":2}}',
    ]
    async with client(scene.address) as app:
        assert await app.receive() == CREATED
        found = []
        for text in texts:
            await app.send(text)
            try:
                event = await app.event()
            except trio.TooSlowError:
                raise AssertionError(f"no answer to {text[:60]}") from None
            assert event["type"] == "error", (text[:60], event)
            found.append(event["error"]["code"])
        await app.send(json.dumps({"type": 7, "event_id": "mine"}))
        assert (await app.event())["error"]["event_id"] == "mine"
        await app.send("{}")
        assert (await app.event())["type"] == "error"
    return f"{len(texts)} errors, the session lives"


async def numbers(scene: Scene) -> str:
    """One that cannot be read is refused; those that can leave as they were written."""
    text = '{"type":"odd.event","n":[1.10,1e30,123456789012345678,-0.0]}'
    async with met(scene) as (app, upstream):
        await app.send('{"type":"session.update","n":' + "9" * 5000 + "}")
        assert (await app.event())["type"] == "error"
        await app.send(text)
        assert (await upstream.receive()).decode() == text
    return "error; the others pass to the byte"


async def binary(scene: Scene) -> str:
    code = await _ended_by(scene, frame(b"\x00\x01", 2))
    assert code == 1003
    return "close 1003"


async def upstream_cut(scene: Scene) -> str:
    async with met(scene) as (app, upstream):
        await upstream.tell("response.created", response={"id": "r", "status": "in_progress", "output": []})
        await upstream.reset()
        with trio.move_on_after(2) as waited:
            events, end = await app.ended()
    if waited.cancelled_caught:
        return "the session goes on with another upstream"
    assert end.code in (1011, 1014)
    return f"{events[-1]['type']}, then {end.code}"


async def upstream_closes(scene: Scene) -> str:
    found = []
    for code in (1008, 3000, 4000):
        async with met(scene) as (app, upstream):
            await upstream.send(code.to_bytes(2, "big") + b"because", CLOSE)
            end = (await app.ended())[1]
            assert end.reason == "because"
            found.append(end.code)
    assert found == [1008, 3000, 4000]
    return "1008, 3000, 4000, with their reason"


async def client_resets(scene: Scene) -> str:
    async with met(scene) as (app, upstream):
        await app.reset()
        with trio.fail_after(12):
            end = (await upstream.ended())[1]
    return f"the upstream is closed with {end.code}"


async def stopped_reader(scene: Scene) -> str:
    """A client reads nothing more: the daemon keeps little of what comes for it, and gives it up."""
    before, peak = resident(scene), 0
    async with met(scene) as (_, upstream):
        with suppress(trio.BrokenResourceError), trio.move_on_after(3):
            while True:
                await upstream.tell("response.output_audio.delta", response_id="r", delta="A" * 60_000)
                peak = max(peak, resident(scene))
        await scene.gateway.said("nothing read within the write deadline")
        await lives(scene)
    assert peak < before + 32e6
    return f"given up; {max(0, peak - before) / 1e6:.0f} MB more memory meanwhile; others lived"


def resident(scene: Scene) -> int:
    """The daemon's memory in bytes."""
    pages = Path(f"/proc/{scene.gateway.process.pid}/statm").read_text("ascii").split()[1]
    return int(pages) * getpagesize()


async def log_injection(scene: Scene) -> str:
    before = len(scene.gateway.log)
    odd = "x%0d%0a2026-01-01%20ERROR%20forged%1b%5b2J"
    async with client(scene.address, f"/v1/realtime?model={odd}") as app:
        await app.close()
    await lives(scene)  # by then its lines are there
    new = scene.gateway.log[before:]
    assert not any(line.startswith("2026-01-01 ERROR forged") or "\x1b" in line for line in new)
    return "no forged line, no escape"


async def thousand_models(scene: Scene) -> str:
    for number in range(100):
        async with client(scene.address, f"/v1/realtime?model=odd{number}") as app:
            await app.close()
    await lives(scene)
    text = (await get(scene.address, "/metrics")).rest.decode()
    assert "rtpipe_sessions_opened_total" in text
    found = {line for line in text.splitlines() if 'model="odd' in line}
    assert len(found) < 100
    return f"100 sessions with names of their own; {len(found)} of these are labels"


async def bad_network(scene: Scene) -> str:
    """80 ms of delay, 20 Mbit/s, single bytes, and what a lost packet is to TCP: now and then a stall."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def pipe(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            rng = random.Random(7)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await source.receive_some(16_384):
                    await trio.sleep(0.08 + len(data) * 8 / 20e6 + (0.2 if rng.random() < 0.03 else 0))
                    for piece in (data[:1], data[1:2], data[2:]):
                        if piece:
                            await sink.send_all(piece)

        async def both(stream: trio.SocketStream) -> None:
            async with await trio.open_tcp_stream(*scene.address) as far, trio.open_nursery() as ways:
                stream.setsockopt(6, 1, 1)
                ways.start_soon(pipe, stream, far)
                await pipe(far, stream)
                ways.cancel_scope.cancel()

        nursery.start_soon(trio.serve_listeners, both, [listener])
        address = listener.socket.getsockname()
        async with met(scene, address) as (app, upstream):
            for number in range(20):
                await app.send(json.dumps({"type": "odd", "n": number, "x": "a" * 3000}))
                assert (await upstream.event())["n"] == number
                await upstream.send(json.dumps({"type": "odd", "n": number, "x": "b" * 3000}))
                assert (await app.event())["n"] == number
        nursery.cancel_scope.cancel()
    return "20 events each way, in order"


async def half_handshakes(scene: Scene) -> str:
    """300 that are reset at any point of their handshake."""
    raw = upgrade("/v1/realtime", bearer())
    before = scene.gateway.descriptors()
    for number in range(300):
        stream = await trio.open_tcp_stream(*scene.address)
        await stream.send_all(raw[: number * len(raw) // 250])
        reset(stream)
    with trio.fail_after(20):
        while scene.gateway.descriptors() > before + 2:  # noqa: ASYNC110 - /proc tells nobody
            await trio.sleep(0.01)
    await lives(scene)
    return "the descriptors came back"
