"""Metrics: computed when they are asked for, from what is counted anyway."""

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as PrometheusMetric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from rtpipe.api.metrics import Distribution, Metric
from rtpipe.daemon.process import Process
from rtpipe.daemon.totals import DIRECTIONS, Labels

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_VERSION = version("rtpipe-gateway")


class Described(NamedTuple):
    """A metric: its kind, what it says, and its labels."""

    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Described] = {
    "rtpipe_build_info": Described("gauge", "What runs; always 1.", ("version",)),
    "rtpipe_sessions": Described("gauge", "Sessions in service."),
    "rtpipe_sessions_opened": Described("counter", "Sessions there were."),
    "rtpipe_sessions_ended": Described(
        "counter",
        "Sessions by who ended them (client, upstream, host, or a stage) and the close code.",
        ("cause", "code"),
    ),
    "rtpipe_session_seconds": Described("histogram", "How long sessions lasted."),
    "rtpipe_connections_refused": Described(
        "counter", "Callers who were not let in, by the code they were told.", ("code",)
    ),
    "rtpipe_events_refused": Described(
        "counter", "Events that were not let through, by stage and code.", ("stage", "code")
    ),
    "rtpipe_disconnects": Described(
        "counter", "Connections lost under a session that lives on, by leg and close code.", ("leg", "code")
    ),
    "rtpipe_reconnects": Described("counter", "Connections replaced under a session, by leg.", ("leg",)),
    "rtpipe_turns": Described("counter", "Turns of callers, by who ended them: vad or client.", ("by",)),
    "rtpipe_responses": Described("counter", "Responses by how they ended.", ("model", "status")),
    "rtpipe_response_failures": Described("counter", "Failed responses by the model's code.", ("code",)),
    "rtpipe_barge_ins": Described(
        "counter", "Responses cut short by the caller's speech or the client's request.", ("by",)
    ),
    "rtpipe_first_audio_seconds": Described(
        "histogram", "From the start of a response to its first audio.", ("model",)
    ),
    "rtpipe_turn_latency_seconds": Described(
        "histogram", "From the end of a caller's turn to the first audio of the answer.", ("model",)
    ),
    "rtpipe_tokens": Described("counter", "Tokens; cached ones are part of input.", ("model", "kind")),
    "rtpipe_cost_usd": Described("counter", "Money spent, in US dollars, as stages say.", ("model",)),
    "rtpipe_image_cost_usd": Described("counter", "The part of it that was for images.", ("model",)),
    "rtpipe_tool_seconds": Described(
        "histogram", "What the model waited for a tool, by how the call ended.", ("tool", "status")
    ),
    "rtpipe_wait_seconds": Described(
        "histogram", "How long events were held, by stage and outcome.", ("stage", "outcome")
    ),
    "rtpipe_alerts": Described("counter", "Alerts by name.", ("alert",)),
    "rtpipe_events": Described("counter", "Events by what became of them.", ("direction", "fate")),
    "rtpipe_upstream_events": Described("counter", "Events exchanged with upstreams.", ("direction", "type")),
    "rtpipe_upstream_bytes": Described("counter", "Payload bytes of these events.", ("direction", "type")),
    "rtpipe_held_events": Described("gauge", "Events that wait now.", ("direction",)),
    "rtpipe_tool_services": Described("gauge", "Tool services connected."),
    "rtpipe_tool_calls": Described("counter", "Calls of tool services, by how they ended.", ("outcome",)),
    "rtpipe_plugin_failures": Described(
        "counter", "Failures of plugins that were contained.", ("stage", "hook")
    ),
    "rtpipe_stage_verdicts": Described(
        "counter", "What the event hooks of a stage decided.", ("stage", "verdict")
    ),
    "rtpipe_stage_seconds": Described("counter", "What the event hooks of a stage took.", ("stage",)),
    "rtpipe_watch_missed": Described("counter", "Facts outside sessions that stages had no time to see."),
    "rtpipe_loop_stalls": Described(
        "counter", "How often the event loop stood still for a second, by who kept it.", ("stage",)
    ),
    "rtpipe_connections": Described("gauge", "Connections to the listeners."),
    "rtpipe_connections_turned_away": Described(
        "counter", "Connections that were one too many, by the bound they met.", ("bound",)
    ),
    "rtpipe_accept_pauses": Described("counter", "How often accepting waited for a free file descriptor."),
    "rtpipe_overloaded": Described("counter", "Sessions refused near a limit, by what was short.", ("what",)),
    "rtpipe_store_failures": Described(
        "counter", "Calls of the store that failed: a full or failing disk, a file that cannot be written."
    ),
    "rtpipe_used": Described("gauge", "Memory in bytes, file descriptors and tasks.", ("what",)),
    "rtpipe_held_bytes": Described(
        "gauge", "Bytes of the events that wait now, or are kept for clients that are gone."
    ),
    "rtpipe_held_bytes_exceeded": Described("counter", "How often max_held_bytes was too little."),
    "rtpipe_reassembly_bytes": Described("gauge", "Bytes of messages of which only part has come."),
    "rtpipe_loop_lag_seconds": Described(
        "histogram", "How much later than due the event loop came to a task, measured every half second."
    ),
}
"""Every metric there is. A counter's samples end in `_total`."""

Values = dict[Labels, float | Distribution]


def snapshot(process: Process) -> list[Metric]:
    """Every metric as it stands."""
    found = _values(process)
    return [Metric(name, *described, found.get(name, {})) for name, described in METRICS.items()]


def _values(process: Process) -> dict[str, Values]:
    totals, guard = process.totals, process.guard
    events, frames, payload = totals.passed()
    failures: Counter[Labels] = Counter()
    for (stage, hook, _), count in guard.failures.items():
        failures[stage, hook] += count
    held: Values = {
        (direction,): sum(each.session.lane(direction).waiting for each in process.served.values())
        for direction in DIRECTIONS
    }
    return {
        **{name: dict(counter) for name, counter in totals.counters.items()},
        **{
            name: {labels: Distribution(each.bounds, tuple(each.counts), each.sum) for labels, each in family}
            for name, family in ((name, each.items()) for name, each in totals.distributions.items())
        },
        "rtpipe_build_info": {(_VERSION,): 1},
        "rtpipe_sessions": {(): len(process.served)},
        "rtpipe_sessions_opened": {(): 0, **totals.counters.get("rtpipe_sessions_opened", {})},
        "rtpipe_events": dict(events),
        "rtpipe_upstream_events": dict(frames),
        "rtpipe_upstream_bytes": dict(payload),
        "rtpipe_held_events": held,
        "rtpipe_tool_services": {(): process.tools.connected_count},
        "rtpipe_tool_calls": {(each,): count for each, count in process.tools.outcomes.items()},
        "rtpipe_plugin_failures": dict(failures),
        "rtpipe_stage_verdicts": {
            (stage, verdict): count for (stage, verdict), count in guard.verdicts.items()
        },
        "rtpipe_stage_seconds": {(stage,): seconds for stage, seconds in guard.seconds.items()},
        "rtpipe_watch_missed": {(): process.watchers.missed},
        **_bounds(process),
        "rtpipe_loop_stalls": {(stage,): count for stage, count in process.watchdog.stalls.items()},
    }


def _bounds(process: Process) -> dict[str, Values]:
    """How much of what is limited is in use, and how often a limit was met."""
    crowd, pressure = process.crowd, process.pressure
    return {
        "rtpipe_connections": {(): crowd.connected},
        "rtpipe_connections_turned_away": {(bound,): count for bound, count in crowd.turned_away.items()},
        "rtpipe_accept_pauses": {(): crowd.accept_pauses},
        "rtpipe_overloaded": {(what,): count for what, count in pressure.refused.items()},
        "rtpipe_store_failures": {(): process.totals.store_failures},
        "rtpipe_used": {(what,): count for what, count in pressure.used.items()},
        "rtpipe_held_bytes": {(): process.held.held},
        "rtpipe_held_bytes_exceeded": {(): process.held.met},
        "rtpipe_reassembly_bytes": {(): process.reassembly.held},
    }


def registry(process: Process) -> CollectorRegistry:
    """A registry of our own: the library's holds whatever else runs in this process."""
    made = CollectorRegistry()
    made.register(_Collector(process))
    return made


def text(metrics: CollectorRegistry) -> bytes:
    """All of it as Prometheus reads it."""
    return generate_latest(metrics)


def reference() -> str:
    """Every metric, as a Markdown table."""
    rows = "| metric | kind | labels | what it says |\n|---|---|---|---|\n"
    for name, (kind, about, labels) in METRICS.items():
        rows += f"| `{exposed(name)}` | {kind} | {', '.join(f'`{each}`' for each in labels)} | {about} |\n"
    return rows


def exposed(name: str) -> str:
    """A metric's name as Prometheus has it."""
    return f"{name}_total" if METRICS[name].kind == "counter" else name


class _Collector(Collector):
    def __init__(self, process: Process) -> None:
        self._process = process

    def describe(self) -> Iterable[PrometheusMetric]:
        return ()  # nothing is computed before somebody asks

    def collect(self) -> Iterable[PrometheusMetric]:
        return [_family(metric) for metric in snapshot(self._process)]


def _family(metric: Metric) -> Any:
    made = _FAMILIES[metric.kind](metric.name, metric.about, labels=metric.labels)
    for labels, value in sorted(metric.values.items(), key=lambda item: item[0]):
        if isinstance(value, Distribution):
            made.add_metric(labels, _buckets(value), sum_value=value.sum)
        else:
            made.add_metric(labels, value)
    return made


_FAMILIES: Mapping[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _buckets(value: Distribution) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in value.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(value.counts)), strict=True))
