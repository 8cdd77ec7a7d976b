"""The trace of one session: its span, and one for each response and tool call, made when they have ended."""

import json
import time
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rtpipe import DialRequest, facts
from rtpipe_tracing import names

_NS = 1_000_000_000
_COST_NS = 1 * _NS
"""How long a response's span waits for what the response cost."""
_CALLS = 200
"""How many calls are remembered by the response that made them."""
_NO_FAULT = frozenset({"ok", "cached", "repeat", "page", "cancelled", "left"})

Attributes = Mapping[str, str | int | float | bool | list[str]]


class Trace:
    """What a session has to say for itself. Every span is closed: the session's at the latest with it."""

    def __init__(self) -> None:
        self._span: Span | None = None
        self._tracer: Tracer | None = None
        self._context = Context()
        self._model = ""
        self._provider = names.OPENAI
        self._server: dict[str, str | int] = {}
        self._waiting: deque[tuple[str, Span, int]] = deque()
        """Responses that have ended and whose cost may yet come, with when they did."""
        self._calls: dict[str, Context] = {}
        self._said: dict[str, list[str]] = {}

    def begin(self, tracer: Tracer, session_id: str, principal: str, model: str, traceparent: str) -> str:
        """A session opens, or goes on in another process. Returns its own ``traceparent``."""
        self._tracer, self._model = tracer, model
        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        attributes = {
            names.CONVERSATION: session_id,
            names.REQUEST_MODEL: model,
            names.PRINCIPAL: principal,
        }
        self._session_id = session_id
        self._span = tracer.start_span(
            f"session {model}", context=parent, kind=SpanKind.SERVER, attributes=attributes
        )
        self._context = set_span_in_context(self._span, Context())
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, self._context)
        return carrier["traceparent"]

    def dialled(self, request: DialRequest) -> None:
        """Who answers from now on."""
        url = urlsplit(request.url)
        self._provider = names.AZURE if request.kind == "azure" else names.OPENAI
        port = url.port or (443 if url.scheme in ("wss", "https") else 80)
        self._server = {names.SERVER_ADDRESS: url.hostname, names.SERVER_PORT: port} if url.hostname else {}

    def said(self, response_id: str, text: str) -> None:
        """The model has said something; its response ends later."""
        if response_id in self._said or len(self._said) < _CALLS:
            self._said.setdefault(response_id, []).append(text)

    def event(self, name: str, attributes: Attributes) -> None:
        """Something happened in the session."""
        if self._span is not None:
            self._span.add_event(name, attributes)

    def fact(self, fact: facts.Fact, content: bool) -> None:
        """What became of something."""
        if self._span is None or self._tracer is None:
            return
        now_ns = time.time_ns()
        self._settle(now_ns - _COST_NS)
        match fact:
            case facts.SessionOpened():
                self._span.set_attributes({names.LISTENER: fact.listener, names.UPSTREAM: fact.upstream})
            case facts.TurnStarted():
                self.event(names.TURN_EVENT, {names.CAUSE: fact.by})
            case facts.ResponseEnded():
                self._response(self._tracer, fact, now_ns, content)
            case facts.Spent():
                self._spent(fact)
            case facts.ToolCalled():
                self._tool(self._tracer, fact, now_ns, content)
            case facts.Waited():
                told = {names.STAGE: fact.stage, names.EVENT_TYPE: fact.type, names.OUTCOME: fact.outcome}
                self.event(names.WAITED_EVENT, {**told, names.SECONDS: fact.duration_s})
            case facts.Refused():
                told = {names.STAGE: fact.stage, names.ERROR_TYPE: fact.code}
                self.event(names.REFUSED_EVENT, told)
            case facts.Alerted():
                told = {names.STAGE: fact.stage, names.CAUSE: fact.name, names.MESSAGE: fact.message}
                self.event(names.ALERT_EVENT, told)
            case facts.LegChanged():
                told = {names.LEG: fact.leg, names.CHANGE: fact.change, names.CAUSE: fact.cause}
                self.event(names.LEG_EVENT, told)
            case facts.SessionClosed():
                self._end(fact)

    def give_up(self) -> bool:
        """End what has not ended: nobody will say how the session did. Returns whether there was anything."""
        if self._span is None:
            return False
        self._settle(time.time_ns())
        self._span.set_attribute(names.INCOMPLETE, True)
        self._span.end()
        self._span = None
        return True

    def _response(self, tracer: Tracer, fact: facts.ResponseEnded, now_ns: int, content: bool) -> None:
        audio = fact.first_audio_s is not None
        attributes: dict[str, str | int | float | list[str]] = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: self._provider,
            names.CONVERSATION: self._session_id,
            names.REQUEST_MODEL: fact.model or self._model,
            names.RESPONSE_ID: fact.response_id,
            names.OUTPUT_TYPE: names.SPEECH if audio else names.TEXT,
            names.FINISH_REASONS: [_finish_reason(fact)],
            names.ORIGIN: fact.origin,
            **self._server,
        }
        if fact.interrupted_by:
            attributes[names.INTERRUPTED_BY] = fact.interrupted_by
        if fact.first_audio_s is not None:
            attributes[names.FIRST_AUDIO] = fact.first_audio_s
        if fact.turn_latency_s is not None:
            attributes[names.TURN_LATENCY] = fact.turn_latency_s
        attributes |= _usage(fact.usage)
        said = self._said.pop(fact.response_id, None)
        if content and said:
            parts = [{"type": "text", "content": text} for text in said]
            message = {"role": "assistant", "parts": parts, "finish_reason": _finish_reason(fact)}
            attributes[names.OUTPUT_MESSAGES] = json.dumps([message])
        span = tracer.start_span(
            f"{names.CHAT} {fact.model or self._model}",
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=now_ns - int(fact.duration_s * _NS),
        )
        if fact.status == "failed":
            span.set_attribute(names.ERROR_TYPE, fact.reason or fact.status)
            span.set_status(Status(StatusCode.ERROR))
        self._waiting.append((fact.response_id, span, now_ns))
        within = set_span_in_context(span, Context())
        for call_id in fact.call_ids:
            if len(self._calls) < _CALLS:
                self._calls[call_id] = within

    def _spent(self, fact: facts.Spent) -> None:
        for each in self._waiting:
            response_id, span, ended_ns = each
            if response_id == fact.response_id:
                span.set_attribute(names.COST, fact.micro_usd / 1e6)
                span.end(ended_ns)
                self._waiting.remove(each)
                return

    def _tool(self, tracer: Tracer, fact: facts.ToolCalled, now_ns: int, content: bool) -> None:
        attributes: dict[str, str] = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: fact.name,
            names.TOOL_TYPE: names.FUNCTION,
            names.TOOL_CALL: fact.call_id,
            names.TOOL_STATUS: fact.status,
            names.STAGE: fact.stage,
            names.CONVERSATION: self._session_id,
        }
        if content and fact.arguments:
            attributes[names.TOOL_ARGUMENTS] = fact.arguments
        span = tracer.start_span(
            f"{names.EXECUTE_TOOL} {fact.name}",
            context=self._calls.pop(fact.call_id, self._context),
            attributes=attributes,
            start_time=now_ns - int(fact.duration_s * _NS),
        )
        if fact.status not in _NO_FAULT:
            span.set_attribute(names.ERROR_TYPE, fact.status)
            span.set_status(Status(StatusCode.ERROR))
        span.end(now_ns)

    def _settle(self, until_ns: int) -> None:
        """Close the spans of responses that ended before then: nobody said what they cost."""
        while self._waiting and self._waiting[0][2] <= until_ns:
            _, span, ended_ns = self._waiting.popleft()
            span.end(ended_ns)

    def _end(self, fact: facts.SessionClosed) -> None:
        assert self._span is not None
        self._settle(time.time_ns())
        self._span.set_attributes(
            {
                names.TURNS: fact.turns,
                names.TOKENS: fact.tokens,
                names.COST: fact.micro_usd / 1e6,
                names.CLOSE_CODE: fact.code,
                names.ENDED_BY: fact.cause,
            }
        )
        if fact.code not in (1000, 1001, 1005) and fact.cause != "client":
            self._span.set_attribute(names.ERROR_TYPE, str(fact.code))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        self._span = None


def _finish_reason(fact: facts.ResponseEnded) -> str:
    if fact.status == "completed":
        return "tool_call" if fact.call_ids else "stop"
    return fact.reason or fact.status


def _usage(usage: Mapping[str, float]) -> dict[str, int]:
    told = {name: int(usage[kind]) for kind, name in names.MODALITIES.items() if usage.get(kind)}
    for name, prefix in (
        (names.INPUT_TOKENS, "input_"),
        (names.OUTPUT_TOKENS, "output_"),
        (names.CACHED_TOKENS, "cached_"),
    ):
        if usage:
            told[name] = int(sum(count for kind, count in usage.items() if kind.startswith(prefix)))
    return told
