"""A session that has ended is gone at once: it leaves nothing to the collector, for which all others wait."""

import gc
import weakref

import pytest
import trio

from tests.daemon.kit import CREATED, KEY_VARIABLE, PATH, UPSTREAM_KEY, client, config, in_process, scripted
from tests.daemon.wire import WAIT_S, reset

CHAIN = ("auth", "image-compressor", "tool-dispatcher", "response-lock", "cost-governor")
NAMED = f"{PATH}?rtpipe_session={7:032x}"
SAID = (
    '{"type":"session.update","session":{"type":"realtime","instructions":"Be brief."}}',
    '{"type":"input_audio_buffer.append","audio":"AAAA"}',
    '{"type":"response.create"}',
    "no event",
)


@pytest.fixture(autouse=True)
def _no_collector(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("manner", ["reset", "closed", "upstream gone", "resumed"])
async def test_nothing_of_a_session_waits_for_the_collector(manner, tmp_path):
    more = "[session]\noutage_s = 0\nresume_window_s = 0.1"
    async with scripted() as model, in_process(config(tmp_path, model.url, chain=CHAIN, more=more)) as daemon:
        target = NAMED if manner == "resumed" else PATH
        async with client(daemon.address, target) as app:
            upstream = await model.next()
            assert await app.receive() == CREATED
            for text in SAID:
                await app.send(text)
            assert b"invalid_json" in await app.receive()
            (session,) = daemon.process.sessions.values()
            gone = [trio.Event() for _ in range(3)]
            for part, event in zip(
                (session, session.client.connection, session.lane("upstream")), gone, strict=True
            ):
                weakref.finalize(part, event.set)
            del session, part
            if manner == "closed":
                await app.close(1000)
            elif manner == "upstream gone":
                reset(upstream.stream)
                with trio.move_on_after(WAIT_S):
                    await app.ended()
            else:
                await app.reset()
            if manner == "resumed":
                async with client(daemon.address, target) as again:
                    await again.receive()
                    await again.reset()
        with trio.fail_after(WAIT_S):
            for event in gone:
                await event.wait()
