"""A daemon that is told to stop: answers in progress are finished and heard, everybody else is sent away."""

import base64
import signal

import pytest
import trio

from rtpipe.cli.main import main
from tests.daemon.kit import client, in_process, meeting, refused, running, scripted, started
from tests.daemon.wire import get

CREATED = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "output": []}
DONE = {**CREATED, "status": "completed"}
AUDIO = base64.b64encode(bytes(24_000)).decode()  # half a second of PCM


async def ask_and_begin(app, upstream):
    """The client asks, the model begins to answer."""
    await app.tell("response.create")
    assert (await upstream.event())["type"] == "response.create"
    await upstream.tell("response.created", response=CREATED)
    assert (await app.event())["type"] == "response.created"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_answer_in_progress_is_finished(file, number):
    async with (
        scripted() as model,
        running(file(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
        meeting(gateway, model) as (idle, _),
    ):
        await ask_and_begin(app, upstream)
        gateway.signal(number)
        events, end = await idle.ended()
        assert (events, end.code, end.reason) == ([], 1012, "service restart")
        ready = await get(gateway.address, "/readyz")
        assert (ready.status, ready.rest) == (503, b'{"ready":false}')
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (503, "shutting_down")
        for word in ("An", " answer"):
            await upstream.tell("response.output_text.delta", response_id="resp_1", delta=word)
            assert (await app.event())["delta"] == word
        await upstream.tell("response.done", response=DONE)
        events, end = await app.ended()
        assert [event["type"] for event in events] == ["response.done"]
        assert (end.code, end.reason) == (1012, "service restart")
        assert await gateway.exited() == 0


async def test_an_answer_is_heard_to_its_end(text):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        (session,) = gateway.process.sessions.values()
        await ask_and_begin(app, upstream)
        await upstream.tell("response.output_audio.delta", response_id="resp_1", delta=AUDIO)
        await upstream.tell("response.done", response=DONE)
        while (await app.event())["type"] != "response.done":
            pass
        assert session.meter.playout_ahead_s > 0
        gateway.process.stop("the test")
        assert (await app.ended())[1].code == 1012
        assert session.meter.playout_ahead_s == 0


async def test_patience_ends(file):
    limits = "[limits]\ndrain_timeout_s = 0.2"
    async with (
        scripted() as model,
        running(file(model.url, more=limits)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        await ask_and_begin(app, upstream)
        gateway.signal()
        assert (await app.ended())[1].code == 1012
        assert await gateway.exited() == 0
    assert "drain_timeout_s is over: 1 sessions are cut short" in gateway.err


async def test_a_second_signal_is_at_once(file):
    async with scripted() as model, started(file(model.url)) as gateway:
        await gateway.said(" with chain ")
        async with meeting(gateway, model) as (app, upstream):
            await ask_and_begin(app, upstream)
            gateway.signal()
            await gateway.said("SIGTERM: stopping, 1 sessions end once they are idle")
        gateway.signal(signal.SIGINT)
        assert (await app.ended())[1].code in ("eof", "reset")
        assert await gateway.exited() == 1


async def test_who_is_let_in_although_it_stops(text):
    """With a successor at the same sockets nobody is refused: who was accepted before gets a session."""
    async with scripted() as model, in_process(text(model.url)) as gateway:
        ended = []
        gateway.process.stopping = gateway.process.has_successor = True
        gateway.process.drain(ended.append)
        async with client(gateway.address):
            await model.next()
            assert [session.id for session in ended] == list(gateway.process.sessions)


async def test_the_admin_socket_drains_too(file, tmp_path, capsys):
    place = tmp_path / "admin.sock"
    async with (
        scripted() as model,
        running(file(model.url, more=f'[admin]\nsocket = "{place}"')) as gateway,
        meeting(gateway, model) as (app, _),
    ):
        gateway.told_to_stop = True
        assert await trio.to_thread.run_sync(main, ["drain", "--socket", str(place)]) == 0
        assert capsys.readouterr().out == "draining: 1 sessions in service\n"
        assert (await app.ended())[1].code == 1012
        assert await gateway.exited() == 0
