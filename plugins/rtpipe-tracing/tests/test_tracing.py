"""What a collector gets: one well-formed trace for a conversation, metrics, and nothing it should not."""

import json
import logging
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rtpipe import Distribution, Metric, facts
from rtpipe.testing import ChainHarness
from rtpipe_tracing import Tracing
from rtpipe_tracing.config import Config
from rtpipe_tracing.export import MetricsSender, Reachable
from rtpipe_tracing.spans import Trace

PARENT = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
CALL = {"id": "i1", "type": "function_call", "name": "weather", "call_id": "c1", "arguments": "{}"}


class Collector:
    """An OTLP receiver: what it got, by path, as it came and decoded."""

    def __init__(self, status):
        self.raw = []
        self.spans = []
        self.metrics = []
        self.headers = []
        self.services = []
        self.paths = []
        self.status = status
        self.got = threading.Event()

    def take(self, path, headers, body):
        self.raw.append(body)
        self.headers.append(headers)
        self.paths.append(path)
        if path.endswith("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.services.append(attributes(resource.resource)["service.name"])
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        else:
            assert path.endswith("/v1/metrics")
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.services.append(attributes(resource.resource)["service.name"])
                for scope in resource.scope_metrics:
                    self.metrics += scope.metrics
        self.got.set()


@contextmanager
def collecting(status=200):
    collector = Collector(status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, dict(self.headers), body)
            self.send_response(collector.status)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def attributes(thing):
    def plain(value):
        kind = value.WhichOneof("value")
        if kind == "array_value":
            return [plain(each) for each in value.array_value.values]
        return getattr(value, kind)

    return {each.key: plain(each.value) for each in thing.attributes}


async def created(chain, name, **response):
    await chain.upstream.send(
        {"type": "response.created", "response": {"id": name, "conversation_id": "c", **response}}
    )


async def audio(chain, name):
    await chain.upstream.send({"type": "response.output_audio.delta", "response_id": name, "delta": "AAAA"})


async def done(chain, name, status="completed", **response):
    usage = {
        "total_tokens": 30,
        "input_tokens": 20,
        "output_tokens": 10,
        "input_token_details": {"text_tokens": 5, "audio_tokens": 15},
        "output_token_details": {"text_tokens": 4, "audio_tokens": 6},
    }
    response = {"id": name, "status": status, "usage": usage, **response}
    await chain.upstream.send({"type": "response.done", "response": response})


async def conversation(chain):
    """A tool call, a barge-in, two responses that overlap, an error, another connection to the model."""
    await chain.upstream.send({"type": "input_audio_buffer.committed", "item_id": "i0"})
    await created(chain, "r1")
    await chain.upstream.send({"type": "response.output_item.done", "response_id": "r1", "item": CALL})
    await done(chain, "r1", output=[CALL])
    output = {"type": "function_call_output", "call_id": "c1", "output": "{}"}
    await chain.client.send({"type": "conversation.item.create", "item": output})
    await created(chain, "r2")
    await audio(chain, "r2")
    await created(chain, "r3", conversation_id=None, output_modalities=["text"])
    await chain.upstream.send(
        {"type": "response.output_audio_transcript.done", "response_id": "r2", "transcript": "It is cold."}
    )
    await chain.upstream.send({"type": "input_audio_buffer.speech_started", "item_id": "i3"})
    reason = {"type": "cancelled", "reason": "turn_detected"}
    await done(chain, "r2", status="cancelled", status_details=reason)
    await chain.upstream.send({"type": "error", "error": {"type": "t", "code": "item_not_found"}})
    await done(chain, "r3")
    await chain.replace_upstream()
    await created(chain, "r4")
    failed = {"type": "failed", "error": {"code": "inference_rate_limit_exceeded"}}
    await done(chain, "r4", status="failed", status_details=failed)
    chain.session.record(facts.Spent(principal="p", model="m", micro_usd=2500, usage={}, response_id="r3"))
    await chain.settle()


async def traced(url, **options):
    options = {"endpoint": url, "metrics": False, **options}
    traceparent = f"00-{PARENT}-{CALLER}-01"
    async with ChainHarness({"tracing": (Tracing, options)}, traceparent=traceparent) as chain:
        await conversation(chain)
        await chain.client.connection.close(1000, "")
        await chain.settle()
        assert chain.guard.failures == {}
    return chain


async def test_one_well_formed_trace():
    with collecting() as (collector, url):
        chain = await traced(url)
    spans = {span.span_id.hex(): span for span in collector.spans}
    assert len(spans) == len(collector.spans) == 6
    assert {span.trace_id.hex() for span in collector.spans} == {PARENT}
    (session,) = [span for span in collector.spans if span.name.startswith("session ")]
    assert session.parent_span_id.hex() == CALLER
    for span in collector.spans:
        assert span is session or span.parent_span_id.hex() in spans
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.start_time_unix_nano >= session.start_time_unix_nano - 1_000_000
        assert span.end_time_unix_nano <= session.end_time_unix_nano

    responses = {attributes(s)["gen_ai.response.id"]: s for s in collector.spans if s.name.startswith("chat")}
    assert set(responses) == {"r1", "r2", "r3", "r4"}
    assert {each.parent_span_id for each in responses.values()} == {session.span_id}
    # Two that overlapped: neither holds the other.
    assert responses["r3"].start_time_unix_nano < responses["r2"].end_time_unix_nano
    told = {name: attributes(span) for name, span in responses.items()}
    assert told["r1"]["gen_ai.response.finish_reasons"] == ["tool_call"]
    assert told["r2"]["gen_ai.response.finish_reasons"] == ["turn_detected"]
    assert told["r2"]["rtpipe.response.interrupted_by"] == "caller"
    assert told["r2"]["rtpipe.response.time_to_first_audio"] >= 0
    assert told["r2"]["rtpipe.response.turn_latency"] >= told["r2"]["rtpipe.response.time_to_first_audio"]
    assert "rtpipe.response.time_to_first_audio" not in told["r3"]
    assert told["r3"]["rtpipe.cost_usd"] == 0.0025
    assert told["r4"]["error.type"] == "inference_rate_limit_exceeded"
    assert responses["r4"].status.code == 2
    assert (
        told["r2"]
        | {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.conversation.id": chain.session.id,
            "gen_ai.request.model": "gpt-realtime-2.1",
            "gen_ai.output.type": "speech",
            "gen_ai.usage.input_tokens": 20,
            "gen_ai.usage.output_tokens": 10,
            "gen_ai.usage.audio.input_tokens": 15,
            "gen_ai.usage.text.input_tokens": 5,
            "gen_ai.usage.audio.output_tokens": 6,
            "gen_ai.usage.text.output_tokens": 4,
        }
        == told["r2"]
    )

    (tool,) = [span for span in collector.spans if span.name == "execute_tool weather"]
    assert tool.parent_span_id == responses["r1"].span_id
    assert attributes(tool)["gen_ai.tool.call.id"] == "c1"
    assert attributes(tool)["rtpipe.tool.status"] == "ok"

    happened = [event.name for event in session.events]
    assert happened.count("rtpipe.turn") == 1
    assert happened.count("rtpipe.error") == 1
    legs = [attributes(event) for event in session.events if event.name == "rtpipe.leg"]
    assert {"rtpipe.leg": "upstream", "rtpipe.change": "replaced", "rtpipe.cause": ""} in legs
    assert attributes(session)["rtpipe.ended_by"] == "client"
    assert attributes(session)["rtpipe.turns"] == 1
    assert "It is cold." not in str(collector.spans)


async def test_content_is_sent_only_when_wanted():
    with collecting() as (collector, url):
        await traced(url, content=True)
    (message,) = [
        json.loads(told["gen_ai.output.messages"])
        for told in map(attributes, collector.spans)
        if "gen_ai.output.messages" in told
    ]
    assert message[0]["parts"] == [{"type": "text", "content": "It is cold."}]


async def test_a_trace_whose_end_was_missed_ends_all_the_same(monkeypatch):
    """More facts than the queue of watchers takes, and the last one of a session is not told."""
    of_trace = Trace.fact

    def forgetful(trace, fact, content):
        if not isinstance(fact, facts.SessionClosed):
            of_trace(trace, fact, content)

    monkeypatch.setattr(Trace, "fact", forgetful)
    with collecting() as (collector, url):
        tracing = {"tracing": (Tracing, {"endpoint": url, "metrics": False})}
        async with ChainHarness(tracing) as chain:
            await conversation(chain)
            plugin = chain.plugin("tracing")
            await chain.session.close()
            # Another session's end, much later, finds it.
            assert plugin.health().sentence.endswith("takes what it is sent")
            monkeypatch.setattr("rtpipe_tracing.plugin._LAST_FACT_S", 0)
            plugin.session_close(chain.session.view("tracing"))
            assert plugin.health().sentence.endswith("; of 1 sessions the end was missed")
        assert plugin.health().sentence.endswith("; of 1 sessions the end was missed")
    (session,) = [span for span in collector.spans if span.name.startswith("session ")]
    assert attributes(session)["rtpipe.incomplete"] is True
    assert len([span for span in collector.spans if span.name.startswith("chat ")]) == 4


async def test_a_session_without_a_trace_of_the_client_begins_one():
    with collecting() as (collector, url):
        async with ChainHarness({"tracing": (Tracing, {"endpoint": url, "metrics": False})}):
            pass
    (session,) = collector.spans
    assert session.parent_span_id == b""
    assert session.trace_id.hex() != PARENT


async def test_nothing_is_sampled():
    with collecting() as (collector, url):
        options = {"endpoint": url, "metrics": False, "sample_ratio": 0}
        async with ChainHarness({"tracing": (Tracing, options)}) as chain:
            await conversation(chain)
    assert collector.spans == []


@pytest.mark.parametrize("status", [None, 503], ids=["absent", "refuses"])
async def test_a_collector_that_is_not_there_is_one_warning(caplog, status):
    caplog.set_level(logging.DEBUG)
    with collecting(status or 200) as (_, url):
        url = url if status else "http://127.0.0.1:9"
        options = {"queue_spans": 512, "timeout_s": 0.2}
        with trio.fail_after(30):
            chain = await traced(url, **options)
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in lines] == ["rtpipe_tracing"]
    assert "does not take traces" in lines[0].message
    assert chain.guard.failures == {}


async def test_a_collector_that_takes_and_never_answers_holds_nobody_up_and_nothing_grows(caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        options = {"endpoint": url, "metrics": False, "queue_spans": 512, "timeout_s": 0.2}
        with trio.fail_after(30):
            async with ChainHarness({"tracing": (Tracing, options)}) as chain:
                for i in range(2000):
                    call = facts.ToolCalled(name="f", call_id=f"{i}", stage="s", duration_s=0, status="ok")
                    chain.session.record(call)
                    if i % 500 == 0:
                        await chain.settle()
                await chain.settle()
                assert chain.session.watchers.missed == 0
                (processor,) = chain.plugin("tracing")._provider._active_span_processor._span_processors
                assert len(processor._batch_processor._queue) <= 512
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in lines] == ["rtpipe_tracing"]
    assert chain.guard.failures == {}


def test_it_is_told_once_and_once_when_it_is_over(caplog):
    caplog.set_level(logging.INFO)
    reachable = Reachable("http://x")
    for ok in (True, False, False, True, True, False):
        reachable.told(ok)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_metrics():
    metrics = [
        Metric("rtpipe_sessions", "gauge", "about", (), {(): 3}),
        Metric("rtpipe_tokens", "counter", "about", ("model", "kind"), {("m", "input_text"): 7}),
        Metric("rtpipe_wait", "histogram", "about", (), {(): Distribution((0.1, 1.0), (2, 1, 0), 0.9)}),
        Metric("rtpipe_none", "counter", "about", (), {}),
    ]
    with collecting() as (collector, url):
        MetricsSender(Config(endpoint=url), Reachable(url)).send(metrics)
    told = {metric.name: metric for metric in collector.metrics}
    assert set(told) == {"rtpipe_sessions", "rtpipe_tokens", "rtpipe_wait"}
    assert told["rtpipe_sessions"].gauge.data_points[0].as_int == 3
    (tokens,) = told["rtpipe_tokens"].sum.data_points
    assert (attributes(tokens), tokens.as_int) == ({"model": "m", "kind": "input_text"}, 7)
    assert told["rtpipe_tokens"].sum.is_monotonic
    (wait,) = told["rtpipe_wait"].histogram.data_points
    assert (list(wait.bucket_counts), list(wait.explicit_bounds), wait.count) == ([2, 1, 0], [0.1, 1.0], 3)
    assert not wait.HasField("min")
    assert not wait.HasField("max")


async def test_the_stage_wants_no_delta():
    async with ChainHarness({"tracing": (Tracing, {"traces": False, "metrics": False})}) as chain:
        deltas = ("response.output_audio.delta", "input_audio_buffer.append", "response.output_text.delta")
        links = chain.session.chain.links
        wanted = [kind for kind in deltas for way in ("upstream", "downstream") if links(way, kind)]
        assert wanted == []


def test_mistakes():
    with pytest.raises(ValueError, match="is no URL of a collector"):
        Config(endpoint="collector:4318")
    assert re.match("http", Config().endpoint)


async def test_a_session_that_another_process_goes_on_with_stays_in_its_trace():
    with collecting() as (collector, url):
        stages = {"tracing": (Tracing, {"endpoint": url, "metrics": False})}
        async with ChainHarness(stages) as chain:
            before = chain.snapshot()
        async with ChainHarness(stages, restores=before) as chain:
            assert chain.guard.failures == {}
    first, second = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert first.trace_id == second.trace_id
    assert second.parent_span_id == first.span_id
    assert attributes(first)["gen_ai.conversation.id"] == attributes(second)["gen_ai.conversation.id"]
