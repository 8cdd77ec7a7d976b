"""What callers may use up, and what is left for the others meanwhile."""

import gc
import weakref
from contextlib import suppress
from functools import partial

import trio

from tests.daemon.kit import bearer, client, in_process, meeting, refused, running, scripted
from tests.daemon.wire import WAIT_S, Ended, WebSocket, knock, read_head, reset, upgrade


async def admitted(gateway):
    """Knock until somebody who left has made room."""
    with trio.fail_after(WAIT_S):
        while not isinstance(answer := await knock(gateway.address, "/v1/realtime", bearer()), WebSocket):
            assert answer.error["code"] == "too_many_sessions"
    return answer


async def test_max_sessions(text):
    limits = "[limits]\nmax_sessions = 2"
    async with (
        scripted() as model,
        in_process(text(model.url, more=limits)) as gateway,
        meeting(gateway, model) as (app, _),
        meeting(gateway, model),
    ):
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (503, "too_many_sessions")
        assert answer.headers["retry-after"] == "5"
        await app.close()
        again = await admitted(gateway)
        await trio.aclose_forcefully(again.stream)


async def test_who_is_refused_takes_no_room(text):
    limits = "[limits]\nmax_sessions = 1"
    async with scripted() as model, in_process(text(model.url, more=limits)) as gateway:
        for _ in range(3):
            assert (await refused(gateway.address, headers=[])).status == 401
            assert (await refused(gateway.address, "/v1/realtime?call_id=x")).status == 404
        async with meeting(gateway, model):
            pass


async def trickle(stream):
    """A request head, a byte at a time, for as long as anybody takes it."""
    for byte in upgrade("/v1/realtime", [("X", "a" * 60_000)]):
        try:
            await stream.send_all(bytes([byte]))
        except trio.BrokenResourceError:
            return
        await trio.sleep(0.02)


async def test_slow_handshakes(text):
    limits = "[limits]\nhandshake_timeout_s = 0.3"
    async with scripted() as model, in_process(text(model.url, more=limits)) as gateway:
        async with await trio.open_tcp_stream(*gateway.address) as silent:
            assert (await read_head(silent)).status == 408
        async with await trio.open_tcp_stream(*gateway.address) as slow, trio.open_nursery() as nursery:
            nursery.start_soon(trickle, slow)
            with suppress(Ended):  # a byte that comes after the end makes a reset, which may be the faster
                assert (await read_head(slow)).status == 408
            nursery.cancel_scope.cancel()


async def test_idle_sockets_keep_nobody_out(text):
    async with scripted() as model, in_process(text(model.url)) as gateway:
        idle = [await trio.open_tcp_stream(*gateway.address) for _ in range(200)]
        async with meeting(gateway, model):
            pass
        for stream in idle:
            await trio.aclose_forcefully(stream)


async def descriptors_back_to(gateway, before):
    """Wait until the daemon has no more descriptors than then."""
    with trio.fail_after(WAIT_S):
        while gateway.descriptors() > before:  # noqa: ASYNC110 - /proc tells nobody when it changes
            await trio.sleep(0.01)


async def test_a_crowd(file):
    """100 at once, 300 that are reset at any point of it: afterwards all is as it was."""
    async with scripted() as model, running(file(model.url)) as gateway:
        before = gateway.descriptors()

        async def converse(number):
            async with client(gateway.address) as app:
                await app.receive()
                await app.tell("hello", number=number)
                await app.close()

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(converse, number)

        raw = upgrade("/v1/realtime", bearer())

        async def vanish(number):
            stream = await trio.open_tcp_stream(*gateway.address)
            await stream.send_all(raw[: number * len(raw) // 250])
            if number >= 275:
                await read_head(stream)
            reset(stream)

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(partial(vanish, number))

        await descriptors_back_to(gateway, before)
        async with client(gateway.address, "/v1/realtime?model=last") as app:
            await app.tell("still.here")
            while (upstream := await model.next()).head.target != "/v1/realtime?model=last":
                pass
            assert await upstream.receive() == b'{"type":"still.here"}'


async def test_nothing_of_a_session_stays_in_memory(text):
    seen = []
    async with scripted() as model, in_process(text(model.url)) as gateway:
        for _ in range(5):
            async with meeting(gateway, model) as (app, _):
                seen += map(weakref.ref, gateway.process.sessions.values())
                await app.close()
        with trio.fail_after(WAIT_S):
            await gateway.process.empty()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert len(seen) >= 5
        assert not [session for ref in seen if (session := ref()) is not None]
