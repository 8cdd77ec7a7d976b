"""How a session ends: whoever is left learns the truth, in bounded time."""

from contextlib import suppress

import pytest
import trio

from tests.daemon.kit import in_process, meeting, running, scripted
from tests.daemon.wire import WAIT_S, frame, get

NO_OTHER = "[session]\noutage_s = 0"
"""A lost upstream ends the session."""
DELTA = b'{"type":"response.output_audio.delta","delta":"' + b"QUJD" * 2000 + b'"}'


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 3000, 4000, 4999])
async def test_the_upstreams_close_reaches_the_client(text, code):
    async with (
        scripted() as model,
        in_process(text(model.url, more=NO_OTHER)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        await upstream.send(DELTA)
        await upstream.close(code, "because – é")
        events, end = await app.ended()
        assert [event["type"] for event in events] == ["response.output_audio.delta"]
        assert (end.code, end.reason) == (code, "because – é")


async def leave_with_rst(peer):
    await peer.reset()


async def leave_with_fin(peer):
    await peer.stream.send_eof()


async def leave_in_mid_frame(peer):
    await peer.stream.send_all(frame("half of it", masked=peer.masks)[:-5])
    await peer.stream.aclose()


async def close_without_a_code(peer):
    await peer.send(b"", 8)


async def send_a_reserved_opcode(peer):
    await peer.stream.send_all(frame("x", opcode=0x3, masked=peer.masks))


async def send_bad_utf8(peer):
    await peer.stream.send_all(frame(b"\xff", masked=peer.masks))


@pytest.mark.parametrize(
    "leave",
    [
        leave_with_rst,
        leave_with_fin,
        leave_in_mid_frame,
        close_without_a_code,
        send_a_reserved_opcode,
        send_bad_utf8,
    ],
)
async def test_an_upstream_that_breaks_off_is_no_normal_end(text, leave):
    async with (
        scripted() as model,
        in_process(text(model.url, more=NO_OTHER)) as gateway,
        meeting(gateway, model) as (app, upstream),
        meeting(gateway, model) as (other, theirs),
    ):
        await upstream.send(b'{"type":"response.created","response":{"id":"resp_1"}}')
        assert (await app.event())["type"] == "response.created"
        await leave(upstream)
        events, end = await app.ended()
        assert [event["type"] for event in events] == ["error"]
        assert events[0]["error"]["code"] == "upstream_connection_lost"
        assert (end.code, end.reason) == (1011, "upstream connection lost")
        await other.tell("still.here")
        assert await theirs.receive() == b'{"type":"still.here"}'


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (1001, ""), (4001, "é"), (3000, "mine")])
async def test_the_clients_close_reaches_the_upstream(text, code, reason):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        await app.tell("last.words")
        await app.close(code, reason)
        events, end = await upstream.ended()
        assert [event["type"] for event in events] == ["last.words"]
        assert (end.code, end.reason) == (code, reason)


@pytest.mark.parametrize(
    "leave", [leave_with_rst, leave_with_fin, leave_in_mid_frame, send_a_reserved_opcode, send_bad_utf8]
)
async def test_a_client_that_vanishes_frees_the_upstream(text, leave):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        await leave(app)
        assert (await upstream.ended())[1].code == 1001


async def test_a_client_that_vanishes_in_mid_response(text):
    async with scripted() as model, in_process(text(model.url)) as gateway:
        async with meeting(gateway, model) as (app, upstream):
            for _ in range(50):
                await upstream.send(DELTA)
            await app.receive()
            await app.reset()
            assert (await upstream.ended())[1].code == 1001
        with trio.fail_after(WAIT_S):
            await gateway.process.empty()
        assert not gateway.process.sessions


async def test_a_client_that_stops_reading(text):
    """It is closed when its deadline has passed, the upstream let go; others do not notice."""
    limits = "[limits]\nwrite_deadline_s = 0.5"
    async with (
        scripted() as model,
        in_process(text(model.url, more=limits)) as gateway,
        meeting(gateway, model) as (_stopped, flood),
        meeting(gateway, model) as (other, theirs),
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def send() -> None:
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                while True:
                    await flood.send(DELTA)

        for _ in range(20):
            await other.tell("still.here")
            assert await theirs.receive() == b'{"type":"still.here"}'
        events, end = await flood.ended()
        assert not events
        assert end.code in (1001, "eof", "reset")
        nursery.cancel_scope.cancel()


async def test_both_leave_at_once(text):
    async with scripted() as model, in_process(text(model.url)) as gateway:
        for _ in range(20):
            async with meeting(gateway, model) as (app, upstream), trio.open_nursery() as nursery:
                nursery.start_soon(app.close, 4001, "client")
                nursery.start_soon(upstream.close, 4002, "upstream")
        with trio.fail_after(WAIT_S):
            await gateway.process.empty()


async def test_a_session_leaves_one_line_at_its_opening_and_one_at_its_end(file):
    async with scripted() as model, running(file(model.url)) as gateway:
        async with meeting(gateway, model) as (app, _):
            await app.close(4001, "had enough")
        await gateway.said("closed by client")
        assert (await get(gateway.address, "/healthz")).status == 200
    opened, closed = [line for line in gateway.log if " session sess_" in line]
    assert "opened: principal app, model gpt-realtime-2.1, listener 127.0.0.1:0, upstream model" in opened
    assert " s: 4001 had enough; principal app, model gpt-realtime-2.1, 0 turns, 0 tokens, " in closed
