"""Each option does what it says."""

import msgspec
import pytest
import trio

from rtpipe import Metric, facts
from rtpipe.testing import ChainHarness
from rtpipe_tracing import Tracing
from rtpipe_tracing.config import Config
from rtpipe_tracing.export import MetricsSender, Reachable

from .test_tracing import CALLER, PARENT, attributes, collecting, created, done

SESSIONS = Metric("rtpipe_sessions", "gauge", "about", (), {(): 3})
HEARD = "conversation.item.input_audio_transcription.completed"


async def traced(url, traceparent="", **options):
    """One session in which the caller and the model speak and a tool runs."""
    options = {"endpoint": url, "metrics": False, **options}
    async with ChainHarness({"tracing": (Tracing, options)}, traceparent=traceparent) as chain:
        await chain.upstream.send({"type": HEARD, "item_id": "i", "transcript": "My number is 4711."})
        await created(chain, "r1")
        said = {"response_id": "r1", "transcript": "You said 4711."}
        await chain.upstream.send({"type": "response.output_audio_transcript.done", **said})
        await done(chain, "r1")
        chain.session.record(
            facts.ToolCalled(
                name="f", call_id="c", stage="s", duration_s=0, status="ok", arguments='{"a": "argued"}'
            )
        )
        await chain.client.connection.close(1000, "")
        await chain.settle()


async def test_both_kinds_of_delivery_go_where_and_as_the_operator_says(monkeypatch):
    monkeypatch.setenv("COLLECTOR_AUTHORIZATION", "Bearer of-the-collector")
    with collecting() as (collector, url):
        options = {
            "endpoint": f"{url}/otlp/",
            "headers": {"authorization": {"env": "COLLECTOR_AUTHORIZATION"}},
            "service_name": "reception",
        }
        await traced(**{"url": url, **options})
        traces = len(collector.raw)
        MetricsSender(msgspec.convert(options, Config), Reachable(url)).send([SESSIONS])
    assert set(collector.paths) == {"/otlp/v1/traces", "/otlp/v1/metrics"}
    assert [metric.name for metric in collector.metrics] == ["rtpipe_sessions"]
    assert len(collector.raw) == traces + 1
    sent = [{name.lower(): value for name, value in headers.items()} for headers in collector.headers]
    assert {headers["authorization"] for headers in sent} == {"Bearer of-the-collector"}
    assert set(collector.services) == {"reception"}
    assert len(collector.services) == traces + 1


async def test_traces_may_be_left_out():
    with collecting() as (collector, url):
        await traced(url, traces=False)
    assert collector.raw == []


@pytest.mark.parametrize(("place", "sent"), [(0.24, True), (0.26, False)])
async def test_the_share_of_sessions_that_are_traced(monkeypatch, place, sent):
    """It is the lower half of a trace's id that decides."""
    name = int(place * 2**64) | 1 << 64
    monkeypatch.setattr("opentelemetry.sdk.trace.RandomIdGenerator.generate_trace_id", lambda _: name)
    with collecting() as (collector, url):
        await traced(url, sample_ratio=0.25)
    assert bool(collector.spans) == sent


@pytest.mark.parametrize(("ratio", "flags", "sent"), [(0, "01", True), (1, "00", False)])
async def test_the_client_decides_for_its_session(ratio, flags, sent):
    with collecting() as (collector, url):
        await traced(url, f"00-{PARENT}-{CALLER}-{flags}", sample_ratio=ratio)
    assert bool(collector.spans) == sent


@pytest.mark.parametrize("content", [True, False])
async def test_content_is_all_or_nothing_and_redacted(monkeypatch, content):
    monkeypatch.setattr(Tracing, "redact", lambda _, text: text.replace("4711", "[number]"))
    with collecting() as (collector, url):
        await traced(url, content=content)
    told = str([attributes(thing) for span in collector.spans for thing in (span, *span.events)])
    assert {span.name.split()[0] for span in collector.spans} == {"session", "chat", "execute_tool"}
    for words in ("My number is [number].", "You said [number].", "argued"):
        assert (words in told) == content
    assert "4711" not in told


async def reads_of_metrics(monkeypatch, **options):
    """When they are read in 100 s, and what goes to the thread; no delivery there comes to its end."""
    reads, sent = [], []

    def read(_):
        reads.append(trio.current_time() - began)
        return [SESSIONS]

    async def hang(_, metrics, **__):
        sent.append(metrics)
        await trio.sleep_forever()

    monkeypatch.setattr(Tracing, "metrics", read)
    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    began = trio.current_time()
    async with ChainHarness({"tracing": (Tracing, {"traces": False, **options})}):
        await trio.sleep_until(began + 100)
    assert sent == [[SESSIONS]] * len(reads)
    return reads


async def test_how_often_metrics_are_sent_and_when_a_delivery_is_given_up(monkeypatch, autojump_clock):
    options = {"metrics_interval_s": 30, "timeout_s": 2}
    assert await reads_of_metrics(monkeypatch, **options) == pytest.approx([30, 64, 98])


async def test_metrics_may_be_left_out(monkeypatch, autojump_clock):
    assert await reads_of_metrics(monkeypatch, metrics=False, metrics_interval_s=30) == []
