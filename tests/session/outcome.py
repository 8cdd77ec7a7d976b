"""What a call over several connections came to, and what of it is not as it is to be."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec

from rtpipe import facts
from rtpipe.testing import ChainHarness
from tests.session.cuts import Upstreams

if TYPE_CHECKING:
    from tests.session.full_chain import Caller, Disk

TRACE = "0af7651916cd43dd8448eb211c80319c"
PRICES = {
    "input_text": Fraction(4),
    "input_audio": Fraction(32),
    "input_image": Fraction(5),
    "cached_text": Fraction(4, 10),
    "cached_audio": Fraction(4, 10),
    "cached_image": Fraction(1, 2),
    "output_text": Fraction(24),
    "output_audio": Fraction(64),
}
"""Micro-dollars a token, of gpt-realtime-2.1."""


class Outcome:
    """What one call came to, read when it is over."""

    def __init__(self, chain: ChainHarness, caller: Caller, upstreams: Upstreams, disk: Disk) -> None:
        self.chain, self.caller, self.upstreams, self.disk = chain, caller, upstreams, disk
        (cap,) = (cap for cap in chain.state("cost-governor").money if cap.what == "conversation")
        self.budget = cap.limit or 0
        self.asked_again = chain.session.upstream_edge.retries
        self.entries: dict[str, dict[str, Any]] = {}
        """What is in the ledger, by reservation."""
        self.total = 0
        """What stands on the session's counter."""

    async def read_ledger(self) -> None:
        key = ""
        while found := await self.disk.scan("entry:", after=key):
            self.entries |= {each.split(":", 2)[2]: msgspec.json.decode(found[each]) for each in found}
            key = list(found)[-1]
        self.total = await self.disk.counter(f"usd:session:{self.chain.session.id}")

    def said(self, kind: str, *logs: list[str]) -> list[dict[str, Any]]:
        """Every event of a type that the simulated models have said."""
        lines = (msgspec.json.decode(line) for log in logs or self.upstreams.logs for line in log)
        events = [line["event"] for line in lines if line.get("from") == "server" and "event" in line]
        return [event for event in events if event["type"] == kind]

    def facts(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self.chain.facts if isinstance(fact, kind)]

    @property
    def was_ended(self) -> bool:
        """Whether the governor has ended the conversation, with a goodbye."""
        return self.chain.session.ending is not None and self.chain.session.ending.cause == "cost-governor"

    # --- what is wrong with it ------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """What is not as it is to be, wherever a connection was cut."""
        self.chain.check_fates()
        checks = (self._ledger, self._creates, self._answers, self._tools, self._client, self._trace)
        return [found for check in checks for found in check()]

    def _ledger(self) -> Iterator[str]:
        ended = {fact.response_id: fact for fact in self.facts(facts.ResponseEnded)}
        spent = {fact.response_id: fact for fact in self.facts(facts.Spent) if fact.response_id}
        if ended.keys() != spent.keys() or len(ended) != len(self.facts(facts.ResponseEnded)):
            yield f"{len(ended)} answers ended, {len(spent)} were billed"
        bills = {each["response"]["id"]: each["response"]["usage"] for each in self.said("response.done")}
        for response_id, fact in spent.items():
            if fact.usage and fact.micro_usd != price(bills[response_id]):
                yield f"{fact.micro_usd} spent for a bill of {price(bills[response_id])}"
            if not fact.usage and ended[response_id].usage:
                yield "a bill was not read"
        for each, entry in self.entries.items():
            if not entry["usage"] and entry["micro_usd"] != self.disk.reserved[each]:
                yield f"an answer without a bill counts {entry['micro_usd']}, not what was reserved"
            if entry["micro_usd"] != self.disk.settled.get(each):
                yield f"an entry of {entry['micro_usd']} was settled as {self.disk.settled.get(each)}"
        sums = [sum(entry["micro_usd"] for entry in self.entries.values()), self.total]
        sums += [sum(fact.micro_usd for fact in self.facts(facts.Spent))]
        sums += [fact.micro_usd for fact in self.facts(facts.SessionClosed)]
        if len(set(sums)) > 1:
            yield f"entries, counter, facts and the session's end come to {sums}"
        if self.total > self.budget:
            yield f"{self.total} spent of {self.budget}"
        if left := self.disk.reserved.keys() - self.disk.settled.keys():
            yield f"reservations left open: {left}"

    def _creates(self) -> Iterator[str]:
        done = [event["response"] for event in self.caller.of("response.done")]
        refused = {event["error"]["event_id"] for event in self.caller.of("error")}
        for number in map(str, range(1, self.caller.creates + 1)):
            answers = [each["status"] for each in done if (each["metadata"] or {}).get("number") == number]
            fine = (["completed"], ["failed", "completed"] if self.asked_again else ["failed"])
            if answers not in fine and f"create-{number}" not in refused and not self.caller.is_away:
                yield f"create {number} was answered {answers}"
        began = Counter(event["response"]["id"] for event in self.caller.of("response.created"))
        if began != Counter(response["id"] for response in done) and not self.caller.is_away:
            yield "an answer began without an end, or the other way round"

    def _answers(self) -> Iterator[str]:
        """Whoever asked: the client, voice activity, or the dispatcher for results."""
        apart = {
            r["id"] for e in self.said("response.created") if (r := e["response"])["conversation_id"] is None
        }
        ended = [f for f in self.facts(facts.ResponseEnded) if f.response_id not in apart]
        answers = [fact for fact in ended if fact.status == "completed" or not self.asked_again]
        called = [fact for fact in self.facts(facts.ToolCalled) if fact.stage == "tool-dispatcher"]
        ours = {fact.call_id for fact in called}
        # The results of one response are answered together, and what came too late once more.
        results = sum(not ours.isdisjoint(fact.call_ids) for fact in ended)
        results += sum(fact.status == "late-offered" for fact in called)
        if len(answers) > self.caller.creates + 1 + results + self.was_ended:
            yield f"{len(answers)} answers to {self.caller.creates} requests, a turn and {results} results"

    def _tools(self) -> Iterator[str]:
        ran = self.chain.plugin("offer").answers
        called = [fact for fact in self.facts(facts.ToolCalled) if fact.stage == "tool-dispatcher"]
        calls = Counter(fact.call_id for fact in called if not fact.status.startswith("late-"))
        if len(ran) != len(calls) or calls.total() != len(calls):
            yield f"{calls}, and {len(ran)} runs"
        told = self.said("conversation.item.added", self.upstreams.logs[-1])
        for answer in ran:
            items = (event["item"] for event in told)
            times = sum(f'{answer}"' in item_text(item) for item in items if item.get("role") != "assistant")
            if times > 1 or not (times or self.was_ended):
                yield f"{answer} was told {times} times"

    def _client(self) -> Iterator[str]:
        if len(self.caller.of("session.created")) != self.caller.connections:
            yield f"{len(self.caller.of('session.created'))} times session.created"
        errors = {event["error"]["code"] for event in self.caller.of("error")}
        told = self.was_ended and not self.caller.is_away
        if errors - {"cost_limit_reached", "event_dropped"} or told != ("cost_limit_reached" in errors):
            yield f"{errors}"
        added = [event["item"]["id"] for event in self.caller.of("conversation.item.added")]
        if len(added) != len(set(added)):
            yield "an item was added twice"
        if not all(event.get("event_id") for event in self.caller.events):
            yield "an event without an id"
        ours = [fact.call_id for fact in self.facts(facts.ToolCalled) if fact.stage == "tool-dispatcher"]
        seen = msgspec.json.encode(self.caller.events).decode()
        yield from (f"the client sees {each}" for each in ours if each in seen)

    def _trace(self) -> Iterator[str]:
        spans = self.chain.plugin("tracing").spans
        if {span.context.trace_id for span in spans.began} != {int(TRACE, 16)}:
            yield "more than one trace"
        if len(spans.began) != len(spans.ended):
            yield f"{len(spans.began)} spans began, {len(spans.ended)} ended"
        names = Counter(span.name.split()[0] for span in spans.ended)
        if names["session"] != 1 or names["chat"] != len(self.facts(facts.ResponseEnded)):
            yield f"{names}"
        (session,) = [span for span in spans.ended if span.name.startswith("session")]
        changes = [(fact.leg, fact.change) for fact in self.facts(facts.LegChanged)]
        seen = [
            (event.attributes["rtpipe.leg"], event.attributes["rtpipe.change"])
            for event in session.events
            if event.attributes and "rtpipe.leg" in event.attributes
        ]
        if seen != changes:
            yield f"the trace knows of {seen}, not of {changes}"


def item_text(item: dict[str, Any]) -> str:
    """What an item of a result says."""
    texts = [part.get("text", "") for part in item.get("content", ())]
    return str(item.get("output", "")) + "".join(texts)


def price(usage: dict[str, Any]) -> int:
    """What a bill comes to, in micro-dollars, rounded up once."""
    read, said = usage["input_token_details"], usage["output_token_details"]
    cached = read["cached_tokens_details"]
    total = Fraction(0)
    for kind in ("text", "audio", "image"):
        total += PRICES[f"input_{kind}"] * (read[f"{kind}_tokens"] - cached[f"{kind}_tokens"])
        total += PRICES[f"cached_{kind}"] * cached[f"{kind}_tokens"]
        total += PRICES.get(f"output_{kind}", 0) * said.get(f"{kind}_tokens", 0)
    return math.ceil(total)
