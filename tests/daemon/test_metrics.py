"""Metrics where they are asked for, and bounded whatever comes."""

import pytest
import trio

from rtpipe.api import facts
from rtpipe.daemon import metrics
from rtpipe.daemon.totals import Totals
from rtpipe.testing import ChainHarness
from tests.daemon.kit import in_process
from tests.daemon.wire import get


@pytest.mark.parametrize(("listen", "status"), [("metrics = true", 200), ("", 404), ("metrics = false", 404)])
async def test_a_listener_has_them_when_it_says_so(text, listen, status):
    async with in_process(text(listen=listen)) as gateway:
        answer = await get(gateway.address, "/metrics", [])
        assert answer.status == status
        assert (b"rtpipe_sessions_opened_total 0.0" in answer.rest) == (status == 200)


def _facts(name):
    """With *name* wherever a client, a model, a token or a tool has its say; the rest are words of ours."""
    yield facts.SessionOpened(session=name, principal=name, model=name, listener=name, upstream=name)
    usage = {"input_text": 1}
    yield facts.ResponseEnded(
        session=name,
        response_id=name,
        status=name,
        origin=name,
        duration_s=1,
        usage=usage,
        model=name,
        reason=name,
        interrupted_by=name,
        first_audio_s=1,
        turn_latency_s=1,
    )
    yield facts.Spent(session=name, principal=name, model=name, micro_usd=1, usage=usage, image_micro_usd=1)
    yield facts.ToolCalled(session=name, name=name, call_id=name, stage=name, duration_s=1, status=name)
    yield facts.Waited(session=name, stage="lock", type=name, duration_s=1, outcome="released")
    yield facts.Refused(session=name, stage=name, code=name, message=name)
    yield facts.Refused(stage="host", code=name, message=name)
    yield facts.Alerted(stage=name, name=name, message=name, labels={})
    yield facts.TurnStarted(session=name, item_id=name, by="vad")
    yield facts.LegChanged(session=name, leg="client", change="lost", cause=name)
    yield facts.SessionClosed(
        session=name, principal=name, code=4000, reason=name, cause=name, duration_s=1, model=name
    )


async def test_ten_thousand_names_are_a_bounded_number_of_labels(text):
    async with in_process(text()) as gateway:
        for i in range(10_000):
            for fact in _facts(f"n{i}"):
                gateway.process.totals.fact(fact)
        told = metrics.snapshot(gateway.process)
        exposed = await _size(gateway)
    bounded = 0
    for metric in told:
        for place, label in enumerate(metric.labels):
            words = {labels[place] for labels in metric.values}
            assert len(words) <= 101, (metric.name, label)
            bounded += len(words) == 101
    assert bounded >= 5  # it was put to the test
    assert exposed < 4 * 2**20


async def test_a_connection_that_is_lost_and_replaced_counts_as_one_of_each(autojump_clock):
    async with ChainHarness({}, redials=True) as chain:
        chain.session.parking.allow()
        chain.client.connection.abort("in words of its own")
        await chain.settle()
        await chain.resume_client()
        chain.upstream.connection.abort()
        await trio.sleep(2)
    totals = Totals()
    for fact in chain.facts:
        totals.fact(fact)
    assert totals.counters["rtpipe_disconnects"] == {("client", "1006"): 1, ("upstream", "1006"): 1}
    assert totals.counters["rtpipe_reconnects"] == {("client",): 1, ("upstream",): 1}


async def _size(gateway):
    return len(metrics.text(metrics.registry(gateway.process)))
