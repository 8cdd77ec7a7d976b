"""What is sent to the collector, and what becomes of it when the collector is not there.

Sending is the work of threads: the SDK's for spans, a worker of trio's for metrics. Nobody waits for either,
nor for the exporters and the HTTP client they bring: those are loaded there, when there is something to send.
"""

import logging
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.sdk.metrics import export as otlp
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from rtpipe import Distribution, Metric
from rtpipe_tracing import names
from rtpipe_tracing.config import Config

log = logging.getLogger("rtpipe_tracing")

SCOPE: Final = "rtpipe"
_EVENTS: Final = 1000
"""Of one span; the SDK drops the oldest beyond it."""


def quieten_sdk() -> None:
    """The SDK says at every delivery what is wrong, with tracebacks. ``Reachable`` says it once."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


class Reachable:
    """Whether the collector takes what it is sent: one line when that changes."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.ok = True

    def told(self, ok: bool) -> None:
        if self.ok and not ok:
            log.warning("%s does not take traces or metrics; they are dropped until it does", self._endpoint)
        elif ok and not self.ok:
            log.info("%s takes traces and metrics again", self._endpoint)
        self.ok = ok


class _Spans(SpanExporter):
    """The exporter of the SDK; whatever becomes of a delivery is told in one place."""

    def __init__(self, config: Config, reachable: Reachable) -> None:
        self._config = config
        self._inner: SpanExporter | None = None
        self._reachable = reachable

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            if self._inner is None:
                self._inner = _span_exporter(self._config)
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001 - whatever the network or the SDK makes of it
            result = SpanExportResult.FAILURE
        self._reachable.told(result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        if self._inner is not None:
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner is None or self._inner.force_flush(timeout_millis)


def _resource(config: Config) -> Resource:
    # Not Resource.create(): what the environment and the machine say of themselves nobody asked for.
    return Resource(
        {names.SERVICE_NAME: config.service_name, names.SERVICE_VERSION: version("rtpipe-gateway")}
    )


def _where(config: Config, path: str) -> dict[str, Any]:
    return {
        "endpoint": f"{config.endpoint.rstrip('/')}{path}",
        "headers": {name: secret.reveal() for name, secret in config.headers.items()},
        "timeout": config.timeout_s,
    }


def _span_exporter(config: Config) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(**_where(config, "/v1/traces"))


def _metric_exporter(config: Config) -> otlp.MetricExporter:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(**_where(config, "/v1/metrics"))


def tracer_provider(config: Config, reachable: Reachable) -> TracerProvider:
    """What makes spans and queues them for the collector."""
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
        resource=_resource(config),
        span_limits=SpanLimits(max_events=_EVENTS),
        shutdown_on_exit=False,
    )
    exporter = _Spans(config, reachable)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=config.queue_spans,
            max_export_batch_size=min(512, config.queue_spans),
            schedule_delay_millis=1000,
        )
    )
    return provider


class MetricsSender:
    """Sends the gateway's metrics as they stand; the SDK has no part in counting them."""

    def __init__(self, config: Config, reachable: Reachable) -> None:
        self._resource = _resource(config)
        self._config = config
        self._exporter: otlp.MetricExporter | None = None
        self._reachable = reachable
        self._began_ns = time.time_ns()

    def send(self, metrics: Sequence[Metric]) -> None:
        """Blocks: to be called in a thread."""
        try:
            if self._exporter is None:
                self._exporter = _metric_exporter(self._config)
            result = self._exporter.export(self.data(metrics))
        except Exception:  # noqa: BLE001 - whatever the network or the SDK makes of it
            result = otlp.MetricExportResult.FAILURE
        self._reachable.told(result is otlp.MetricExportResult.SUCCESS)

    def data(self, metrics: Sequence[Metric]) -> otlp.MetricsData:
        """As the exporter wants them."""
        now_ns = time.time_ns()
        told = [
            otlp.Metric(each.name, each.about, "", self._points(each, now_ns))
            for each in metrics
            if each.values
        ]
        scope = otlp.ScopeMetrics(InstrumentationScope(SCOPE), told, "")
        return otlp.MetricsData([otlp.ResourceMetrics(self._resource, [scope], "")])

    def _points(self, metric: Metric, now_ns: int) -> "otlp.Sum | otlp.Gauge | otlp.Histogram":
        numbers, distributions = [], []
        for values, value in metric.values.items():
            labels = dict(zip(metric.labels, values, strict=True))
            if isinstance(value, Distribution):
                distributions.append(
                    otlp.HistogramDataPoint(
                        attributes=labels,
                        start_time_unix_nano=self._began_ns,
                        time_unix_nano=now_ns,
                        count=sum(value.counts),
                        sum=value.sum,
                        bucket_counts=value.counts,
                        explicit_bounds=value.bounds,
                        # Not known. The SDK's type has no word for that, OTLP and its encoder have.
                        min=None,  # type: ignore[arg-type]
                        max=None,  # type: ignore[arg-type]
                    )
                )
            else:
                numbers.append(otlp.NumberDataPoint(labels, self._began_ns, now_ns, value))
        cumulative = otlp.AggregationTemporality.CUMULATIVE
        if metric.kind == "histogram":
            return otlp.Histogram(distributions, cumulative)
        return otlp.Gauge(numbers) if metric.kind == "gauge" else otlp.Sum(numbers, cumulative, True)
