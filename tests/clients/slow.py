"""A network that delays, stalls and cuts everything into single bytes, before a place."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from tests.clients.scene import Place

DELAY_S = 0.08
BITS_PER_S = 20e6
LOSS, RESENT_S = 0.03, 0.2
"""What a lost packet is to TCP: all that is behind it waits until it was sent again."""
_CHUNK = 1 << 14
_SEED = 7


@asynccontextmanager
async def slowed(place: Place) -> AsyncIterator[Place]:
    """The same place, its TCP and TLS at the end of such a network."""
    async with trio.open_nursery() as nursery:
        ports = []
        for target in (place.tcp, place.tls):
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            ports.append(listener.socket.getsockname()[1])
            to = ("127.0.0.1", int(target.rpartition(":")[2]))
            nursery.start_soon(trio.serve_listeners, partial(_carry_both, to), [listener])
        yield replace(place, tcp=f"127.0.0.1:{ports[0]}", tls=f"localhost:{ports[1]}")
        nursery.cancel_scope.cancel()


async def _carry_both(target: tuple[str, int], stream: trio.SocketStream) -> None:
    try:
        async with stream, await trio.open_tcp_stream(*target) as far, trio.open_nursery() as ways:
            for source, sink in ((stream, far), (far, stream)):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                send, receive = trio.open_memory_channel[tuple[float, bytes]](1000)
                ways.start_soon(_take, source, send)
                ways.start_soon(_give, sink, receive)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # one side went without a word, and so the other was closed


async def _take(source: trio.SocketStream, on_its_way: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
    chance = random.Random(_SEED)
    free_s = 0.0
    async with on_its_way:
        while data := await source.receive_some(_CHUNK):
            lost_s = RESENT_S if chance.random() < LOSS else 0.0
            free_s = max(free_s, trio.current_time()) + len(data) * 8 / BITS_PER_S + lost_s
            await on_its_way.send((free_s + DELAY_S, data))


async def _give(sink: trio.SocketStream, on_its_way: trio.MemoryReceiveChannel[tuple[float, bytes]]) -> None:
    async for due_s, data in on_its_way:
        await trio.sleep_until(due_s)
        for byte in data:
            await sink.send_all(bytes((byte,)))
    await sink.send_eof()
