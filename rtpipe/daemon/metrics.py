"""Metrics for Prometheus: computed when they are asked for, from what is counted anyway."""

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from rtpipe.daemon.process import Process
from rtpipe.daemon.totals import DIRECTIONS

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def registry(process: Process) -> CollectorRegistry:
    """A registry of our own: the library's holds whatever else runs in this process."""
    made = CollectorRegistry()
    made.register(_Collector(process))
    return made


def text(metrics: CollectorRegistry) -> bytes:
    """All of it as Prometheus reads it."""
    return generate_latest(metrics)


class _Collector(Collector):
    def __init__(self, process: Process) -> None:
        self._process = process

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is computed before somebody asks

    def collect(self) -> Iterable[Metric]:
        process, totals = self._process, self._process.totals
        events, frames, payload = totals.passed()
        held = {
            direction: sum(each.session.lane(direction).waiting for each in process.served.values())
            for direction in DIRECTIONS
        }
        failures: Counter[tuple[str, ...]] = Counter()
        for (stage, hook, _), count in process.guard.failures.items():
            failures[stage, hook] += count
        yield InfoMetricFamily("rtpipe_build", "What runs.", {"version": version("rtpipe-gateway")})
        yield GaugeMetricFamily("rtpipe_sessions", "Sessions in service.", value=len(process.served))
        yield CounterMetricFamily("rtpipe_sessions_opened", "Sessions there were.", value=totals.opened)
        yield _counter(
            "rtpipe_sessions_ended",
            "Sessions by who ended them: client, upstream, host, or a stage.",
            ["cause"],
            {(cause,): count for cause, count in totals.ended.items()},
        )
        yield _counter(
            "rtpipe_connections_refused",
            "Callers who were not let in, by the code they were told.",
            ["code"],
            {(code,): count for code, count in totals.refused.items()},
        )
        yield _counter("rtpipe_events", "Events by what became of them.", ["direction", "fate"], events)
        labels = ["direction", "type"]
        yield _counter("rtpipe_upstream_events", "Events exchanged with upstreams.", labels, frames)
        yield _counter("rtpipe_upstream_bytes", "Payload bytes of these events.", labels, payload)
        gauge = GaugeMetricFamily("rtpipe_held_events", "Events that wait now.", labels=["direction"])
        for direction, count in held.items():
            gauge.add_metric([direction], count)
        yield gauge
        services = process.tools
        yield GaugeMetricFamily("rtpipe_tool_services", "Tool services.", value=services.connected_count)
        outcomes: dict[tuple[str, ...], int] = {(each,): n for each, n in services.outcomes.items()}
        yield _counter(
            "rtpipe_tool_calls", "Calls of tool services, by how they ended.", ["outcome"], outcomes
        )
        yield _counter(
            "rtpipe_plugin_failures", "Failures of plugins that were contained.", ["stage", "hook"], failures
        )


def _counter(
    name: str, about: str, labels: list[str], values: "Counter[tuple[str, str]] | dict[tuple[str, ...], int]"
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, about, labels=labels)
    for key, count in sorted(values.items()):
        family.add_metric(key, count)
    return family
