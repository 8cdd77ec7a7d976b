"""The plugin: facts and a few whole events in, traces and metrics out. It decides nothing."""

from collections import deque
from typing import Any

import trio
from opentelemetry.sdk.trace import TracerProvider

from rtpipe import DialRequest, Event, Health, Host, Plugin, Session, facts, watch_server
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Server
from rtpipe_tracing import names
from rtpipe_tracing.config import Config
from rtpipe_tracing.export import SCOPE, MetricsSender, Reachable, quieten_sdk, tracer_provider
from rtpipe_tracing.spans import Trace

_PARENT = "traceparent"
"""Under which a session keeps where it is in its trace, for a process that goes on with it."""
_FLUSH_LIMIT_S = 4.0
_LAST_FACT_S = 10.0
"""How long after its session has closed a trace waits for the fact that says so."""


class Tracing(Plugin[Config, Trace]):
    """Watches; where it fails, sessions go on without it."""

    on_error = "pass"

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self._reachable = Reachable(config.endpoint)
        self._provider: TracerProvider | None = None
        self._closed: deque[tuple[float, Trace]] = deque()
        """The traces of sessions that have closed, with when they did."""
        self._incomplete = 0

    def startup(self) -> None:
        quieten_sdk()
        if self.config.traces:
            self._provider = tracer_provider(self.config, self._reachable)
        if self.config.metrics:
            self.start_soon(self._send_metrics)

    async def shutdown(self) -> None:
        """Let the collector have what waits, for as long as there is."""
        self._end_traces(trio.current_time())
        if self._provider is not None:
            with trio.move_on_after(_FLUSH_LIMIT_S):
                await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)

    async def _send_metrics(self) -> None:
        sender = MetricsSender(self.config, self._reachable)
        while True:
            await trio.sleep(self.config.metrics_interval_s)
            # Read here, where the gateway counts; only what was read goes to the thread.
            metrics = self.metrics()
            with trio.move_on_after(2 * self.config.timeout_s):
                await trio.to_thread.run_sync(sender.send, metrics, abandon_on_cancel=True)

    def session_open(self, session: Session[Trace]) -> None:
        if self._provider is not None:
            tracer = self._provider.get_tracer(SCOPE)
            before = session.kept.get(_PARENT, session.traceparent)
            ours = session.state.begin(tracer, session.id, session.principal.id, session.model, before)
            session.keep({_PARENT: ours})

    def session_close(self, session: Session[Trace]) -> None:
        """Facts may be missed, and the last one too: without it the trace ends a little later."""
        now_s = trio.current_time()
        self._end_traces(now_s - _LAST_FACT_S)
        self._closed.append((now_s, session.state))

    def _end_traces(self, until_s: float) -> None:
        """End the traces of the sessions that closed before then, where that has not happened."""
        while self._closed and self._closed[0][0] <= until_s:
            _, trace = self._closed.popleft()
            self._incomplete += trace.give_up()

    def upstream_dial(self, session: Session[Trace], request: DialRequest) -> None:
        session.state.dialled(request)

    def fact(self, session: Session[Trace] | None, fact: facts.Fact) -> None:
        if session is not None:
            session.state.fact(fact, self.config.content)

    @watch_server(Server.ERROR)
    def see_error(self, session: Session[Trace], event: Event) -> None:
        code, _, _ = events.error_of(event.data)
        session.state.event(names.ERROR_EVENT, {names.ERROR_TYPE: code or "error"})

    @watch_server(Server.TRANSCRIPT_DONE, Server.TEXT_DONE)
    def hear_model(self, session: Session[Trace], event: Event) -> None:
        response_id, text = events.response_id_of(event.data), _text(event.data)
        if self.config.content and response_id and text:
            session.state.said(response_id, self.redact(text))

    @watch_server(Server.TRANSCRIPTION_COMPLETED)
    def hear_caller(self, session: Session[Trace], event: Event) -> None:
        if self.config.content and (text := _text(event.data)):
            session.state.event(names.CALLER_SAID_EVENT, {names.TEXT_SAID: self.redact(text)})

    def health(self) -> Health:
        """A collector that is not there is no reason to turn callers away."""
        what = "takes what it is sent" if self._reachable.ok else "does not answer; spans are dropped"
        missed = f"; of {self._incomplete} sessions the end was missed" if self._incomplete else ""
        return Health(True, f"the collector at {self.config.endpoint} {what}{missed}")


def _text(data: dict[str, Any]) -> str:
    text = data.get("transcript", data.get("text"))
    return text if isinstance(text, str) else ""
