"""Any number of writers, any timing: client, plugins, network and model in any order, against a reference.

``RTPIPE_LONG=1`` tries fifty times as many.
"""

import os
import queue
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import trio
import trio.lowlevel
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from rtpipe import Event, Json, Plugin, facts
from rtpipe.testing import ChainHarness, SessionLimits
from rtpipe_response_lock import ResponseLock
from rtpipe_response_lock.plugin import MAX_REFUSALS

TIMES = 50 if os.environ.get("RTPIPE_LONG") else 1
RETRIES = 2
ACTIVE = "conversation_already_has_active_response"
AUDIBLE = {"conversation": "none", "output_modalities": ["audio"]}
SILENT = {"conversation": "none", "output_modalities": ["text"]}
ASKS = [
    *("create", "create with id", "create with metadata", "invalid create", "audible", "silent", "item"),
    *("plugin", "plugin, audible", "plugin, invalid", "plugin, the same", "plugin, the same"),
]
HAPPENINGS = ["cancel", "read", "read", "hear", "hear", "end", "end any", "fail", "speak", "wait"]


class Writer(Plugin[None, None]):
    """A stage whose view the test uses to ask for responses."""


@dataclass(eq=False)
class Ask:
    """Something that was sent up."""

    name: str
    how: str
    refusals: int = 0
    retries: int = 0

    @property
    def kind(self) -> str:
        return self.how if self.how in ("item", "silent") else "create"

    @property
    def is_automatic(self) -> bool:
        return self.how.startswith("plugin")


class Reference:
    """What has to go up, and when: the lock's README and the ordering table, for somebody who knows which
    response answers which create.
    """

    def __init__(self) -> None:
        self.line: list[Ask] = []
        self.up: Ask | None = None
        self.voices: dict[str, Ask | None] = {}
        self.unannounced = self.resting = False
        self.gone: list[str] = []
        self.outcomes: dict[str, int] = dict.fromkeys(("coalesced", "requeued", "retried", "told"), 0)

    def ask(self, asked: Ask) -> None:
        waiting = [each for each in self.line if each.kind == "create"]
        if asked.how == "plugin, the same" and waiting and waiting[-1].how == asked.how:
            self.line.remove(waiting[-1])
            self.outcomes["coalesced"] += 1
        self.line.append(asked)
        self.go()

    def go(self) -> None:
        """Let go what nothing before it keeps, until nothing moves."""
        behind = {
            "item": ("item", "create", "silent"),
            "create": ("item", "create"),
            "silent": ("item", "silent"),
        }
        place = 0
        while place < len(self.line):
            each = self.line[place]
            taken = self.up or self.voices or self.unannounced or self.resting
            if any(one.kind in behind[each.kind] for one in self.line[:place]) or (
                each.kind == "create" and taken
            ):
                place += 1
                continue
            del self.line[place]
            self.gone.append(each.name)
            if each.kind == "create":
                self.up = each
            place = 0

    def began(self, response_id: str, asked: Ask | None, *, out_of_band: bool) -> None:
        if asked is not None and asked.kind == "silent":
            return
        if asked is not None:
            assert asked is self.up
            self.up = None
        self.unannounced = self.unannounced and out_of_band
        self.voices[response_id] = asked

    def ended(self, response_id: str, status: str) -> None:
        asked = self.voices.pop(response_id, None)
        if asked is not None and asked.is_automatic and status == "failed" and asked.retries < RETRIES:
            asked.retries += 1
            self.outcomes["retried"] += 1
            self.resting = True
            self.line.insert(0, asked)
        self.go()

    def refused(self, asked: Ask, code: str) -> None:
        self.up = None
        if code == ACTIVE:
            self.unannounced = not self.voices
            self.outcomes["requeued" if asked.refusals < MAX_REFUSALS else "told"] += 1
            if asked.refusals < MAX_REFUSALS:
                asked.refusals += 1
                self.line.insert(0, asked)
        self.go()

    def waited(self) -> None:
        self.resting = False
        self.go()


class Model:
    """An upstream that keeps OpenAI's rule: one response in the conversation at a time; the next create is
    refused and forgotten. Others run beside it. The caller's voice starts responses too.

    What was sent to it lies in the network until it *reads*, and what it says until it is *heard*, so
    anything may cross anything.
    """

    def __init__(self, chain: ChainHarness, asks: dict[str, Ask], reference: Reference) -> None:
        self._chain = chain
        self._asks = asks
        self._reference = reference
        self._coming: deque[Json] = deque()
        self._going: deque[tuple[Json, Callable[[], None]]] = deque()
        self.active: list[tuple[Json, Ask | None]] = []
        self.arrived: list[str] = []
        self.accepted: list[str] = []
        """Names of the items and creates that were taken, in order."""
        self.voices = 0
        """Responses at once that somebody asked for and hears, at most."""
        self._count = 0

    @property
    def is_idle(self) -> bool:
        return not (self._coming or self._going or self.active)

    def collect(self) -> None:
        """Take what has come out of the gateway on its way here."""
        for event in self._chain.upstream.take():
            self._coming.append(event)
            if event["type"] != "response.cancel":
                self.arrived.append(self._asked(event).name)

    def _asked(self, event: Json) -> Ask:
        if event["type"] == "conversation.item.create":
            return self._asks[event["item"]["content"][0]["text"]]
        by_id = self._asks.get(event.get("event_id", ""))
        return by_id or self._asks[event["response"]["instructions"].split()[0]]

    def read(self) -> None:
        if not self._coming:
            return
        event = self._coming.popleft()
        in_band = [each for each in self.active if each[0]["conversation_id"]]
        if event["type"] == "response.cancel":
            if in_band:
                self._end(in_band[0], "cancelled")
            else:
                self._say("error", lambda: None, error={"code": "response_cancel_not_active"})
            return
        asked = self._asked(event)
        response = event.get("response") or {}
        code = "invalid_value" if "invalid" in asked.how else ""
        if asked.kind != "item" and response.get("conversation") != "none" and in_band:
            code = ACTIVE
        if code:
            error = {"code": code, "event_id": event.get("event_id")}
            self._say("error", lambda: self._reference.refused(asked, code), error=error)
        if code != ACTIVE:
            self.accepted.append(asked.name)
        if not code and asked.kind != "item":
            self._begin(response, asked)

    def speak(self) -> None:
        """The caller has spoken: answered at once if nothing else is."""
        if not any(response["conversation_id"] for response, _ in self.active):
            self._begin({}, None)

    def end(self, place: int, status: str) -> None:
        if self.active:
            self._end(self.active[place % len(self.active)], status)

    async def hear(self) -> None:
        if self._going:
            event, then = self._going.popleft()
            await self._chain.upstream.send(event)
            then()

    def _begin(self, response: Json, asked: Ask | None) -> None:
        self._count += 1
        response_id = f"r{self._count}"
        out_of_band = response.get("conversation") == "none"
        made = {
            "id": response_id,
            "conversation_id": None if out_of_band else "conv",
            "metadata": response.get("metadata"),
            "output": [],
        }
        self.active.append((made, asked))
        heard = [each for _, each in self.active if each is not None and each.kind == "create"]
        self.voices = max(self.voices, len(heard))
        began = self._reference.began
        self._say(
            "response.created", lambda: began(response_id, asked, out_of_band=out_of_band), response=made
        )

    def _end(self, ended: tuple[Json, Ask | None], status: str) -> None:
        self.active.remove(ended)
        done = ended[0] | {"status": status}
        self._say("response.done", lambda: self._reference.ended(done["id"], status), response=done)

    def _say(self, kind: str, then: Callable[[], None], **what: Any) -> None:
        self._going.append(({"type": kind, "event_id": f"up{len(self._going)}", **what}, then))


class Loop:
    """A trio run that goes on between the steps of a state machine, which is no coroutine. Its time stands
    still."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended = False
        self.clock = trio.testing.MockClock()
        self._steps, steps = trio.open_memory_channel[Callable[[], Awaitable[None]] | None](1)
        trio.lowlevel.start_guest_run(
            self._main,
            steps,
            run_sync_soon_threadsafe=self._todo.put,
            done_callback=self._over,
            clock=self.clock,
        )
        self._pump(lambda: hasattr(self, "chain"))

    async def _main(self, steps: Any) -> None:
        self._token = trio.lowlevel.current_trio_token()
        options = {"max_waiting": 10_000, "retry_failed": RETRIES, "created_timeout_s": 3600}
        stages = {"writer": Writer, "response-lock": (ResponseLock, options)}
        async with ChainHarness(stages, limits=SessionLimits(hold_age_s=1e6)) as chain:
            self.chain = chain
            async for step in steps:
                if step is None:
                    return
                await step()
                self._done = True

    def _over(self, outcome: Any) -> None:
        self._outcome, self._ended = outcome, True

    def _pump(self, until: Callable[[], bool]) -> None:
        while not (until() or self._ended):
            self._todo.get()()

    def run(self, step: Callable[[], Awaitable[None]]) -> None:
        self._done = False
        self._token.run_sync_soon(self._steps.send_nowait, step)
        self._pump(lambda: self._done)
        if not self._done:
            self._outcome.unwrap()

    def end(self) -> None:
        if not self._ended:
            self._token.run_sync_soon(self._steps.send_nowait, None)
            self._pump(lambda: self._ended)
            self._outcome.unwrap()


class Crossing(RuleBasedStateMachine):
    """Asks and happenings in any order; what goes up is what the reference says, after every one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.asks: dict[str, Ask] = {}
        self.asked: list[Ask] = []
        self.reference = Reference()
        self.model = Model(self.loop.chain, self.asks, self.reference)

    @rule(how=st.sampled_from(ASKS))
    def ask(self, how: str) -> None:
        self.loop.run(lambda: self._ask(how))

    @rule(what=st.sampled_from(HAPPENINGS), place=st.integers(0, 3))
    def happen(self, what: str, place: int) -> None:
        self.loop.run(lambda: self._happen(what, place))

    @invariant()
    def nothing_is_early_or_late(self) -> None:
        assert self.model.arrived == self.reference.gone
        assert self.model.voices <= 1

    def teardown(self) -> None:
        try:
            self.loop.run(self._finish)
        finally:
            self.loop.end()

    async def _ask(self, how: str) -> None:
        chain, asked = self.loop.chain, Ask(f"n{len(self.asked)}", how)
        self.asks[asked.name] = asked
        self.asked.append(asked)
        self.reference.ask(asked)
        wish: Json = {"instructions": "the same" if "same" in how else asked.name}
        if "audible" in how:
            wish |= AUDIBLE
        create: Json = {"type": "response.create", "response": wish}
        if how == "item":
            content = [{"type": "input_text", "text": asked.name}]
            item = {"type": "message", "role": "user", "content": content}
            await chain.client.send({"type": "conversation.item.create", "item": item})
        elif how.startswith("plugin"):
            self.asks[chain.session.view("writer").send_upstream(Event(create), audible=True)] = asked
            await chain.settle()
        else:
            if how == "silent":
                wish |= SILENT
            if how == "create with metadata":
                wish["metadata"] = {"mine": "always the same"}
            if how == "create with id":
                create["event_id"] = asked.name
            await chain.client.send(create)
        self.model.collect()

    async def _happen(self, what: str, place: int = 0) -> None:
        match what:
            case "cancel":
                await self.loop.chain.client.send({"type": "response.cancel"})
            case "read":
                self.model.read()
            case "hear":
                await self.model.hear()
            case "end" | "end any" | "fail":
                self.model.end(place if what == "end any" else 0, "failed" if what == "fail" else "completed")
            case "speak":
                self.model.speak()
            case "wait":
                self.loop.clock.jump(10)
                await self.loop.chain.settle()
                self.reference.waited()
        self.model.collect()

    async def _finish(self) -> None:
        """Go on until there is nothing left to do."""
        while not (self.model.is_idle and not self.reference.line):
            for what in ("end", "hear", "read", "wait"):
                await self._happen(what)
        self.check()

    def check(self) -> None:
        chain, outcomes = self.loop.chain, self.reference.outcomes
        assert self.model.arrived == self.reference.gone
        client = chain.client.take()
        # None lost: each was taken, once and again for each retry, but those that another one stood for.
        assert len(set(self.model.accepted)) == len(self.asked) - outcomes["coalesced"] - outcomes["told"]
        assert len(self.model.accepted) == len(set(self.model.accepted)) + outcomes["retried"]
        # None refused: of the model's refusals nobody was told, until one has lost too many races.
        codes = [event["error"]["code"] for event in client if event["type"] == "error"]
        assert codes.count("invalid_value") == sum(each.how == "invalid create" for each in self.asked)
        assert codes.count(ACTIVE) <= outcomes["told"]
        # The client sees what it sent, and nothing of ours.
        assert b"rtpipe" not in msgspec.json.encode(client)
        shown = [event["response"]["metadata"] for event in client if event["type"] == "response.created"]
        named = sum(each.how == "create with metadata" for each in self.asked)
        assert sum(each is not None for each in shown) == named
        state = chain.state("response-lock")
        assert state.is_free
        assert not state.waiting
        chain.check_fates()
        assert not chain.guard.failures
        waited = [fact.outcome for fact in chain.facts if isinstance(fact, facts.Waited)]
        for outcome in ("coalesced", "requeued", "retried"):
            assert waited.count(outcome) == outcomes[outcome]


class Thousand(Crossing):
    """The same, after a thousand creates."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while sum(each.kind != "item" for each in self.asked) < 1000:
            if chance.random() < 0.2:
                self.ask(chance.choice(ASKS))
            else:
                self.happen(chance.choice(HAPPENINGS), chance.randrange(4))
            self.nothing_is_early_or_late()


def run(machine: type[Crossing], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,
            max_examples=examples * TIMES,
            stateful_step_count=steps,
            derandomize=TIMES == 1,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_goes_up_is_what_the_reference_says() -> None:
    run(Crossing, 150, 60)


def test_a_thousand_creates_that_cross() -> None:
    run(Thousand, 1, 5)
