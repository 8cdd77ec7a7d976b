"""Any number of writers, any timing: client, plugins, network and model in any order, against a reference."""

import random
from collections import deque
from typing import Any

import msgspec
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import Event, Json, Plugin, facts
from rtpipe.testing import ChainHarness
from rtpipe_response_lock import ResponseLock

AUDIBLE = {"conversation": "none", "output_modalities": ["audio"]}
SILENT = {"conversation": "none", "output_modalities": ["text"]}


class Writer(Plugin[None, None]):
    """A stage whose view the test uses to ask for responses."""


class Model:
    """An upstream that keeps OpenAI's rule: one response in the conversation at a time; the next create is
    refused and forgotten. Others run beside it. The caller's voice starts responses too.

    What was sent to it lies in the network until it *reads*, and what it says until it is *heard*, so
    anything may cross anything.
    """

    def __init__(self, chain: ChainHarness) -> None:
        self._chain = chain
        self._coming: deque[Json] = deque()
        self._going: deque[Json] = deque()
        self.active: list[Json] = []
        self.read_names: list[str] = []
        """Names of the items and creates that were accepted, in order."""
        self.refused = 0
        self.spoken = 0
        self.voices = 0
        """Responses at once that somebody asked for and hears, at most."""
        self._count = 0

    @property
    def is_idle(self) -> bool:
        return not (self._coming or self._going or self.active or self._chain.upstream.payloads)

    def read(self) -> None:
        self._coming.extend(self._chain.upstream.take())
        if not self._coming:
            return
        event = self._coming.popleft()
        response = event.get("response") or {}
        in_band = [each for each in self.active if each["conversation_id"]]
        if event["type"] == "response.cancel":
            if in_band:
                self._end(in_band[0], "cancelled")
            else:
                self._say("error", error={"code": "response_cancel_not_active"})
        elif event["type"] == "conversation.item.create":
            self.read_names.append(event["item"]["content"][0]["text"])
        elif response.get("conversation") != "none" and in_band:
            self.refused += 1
            code = "conversation_already_has_active_response"
            self._say("error", error={"code": code, "event_id": event.get("event_id")})
        elif "invalid" in response["instructions"]:
            self.read_names.append(response["instructions"].split()[0])
            self._say("error", error={"code": "invalid_value", "event_id": event.get("event_id")})
        else:
            self.read_names.append(response["instructions"].split()[0])
            self._begin(response)
            asked = [r for r in self.active if r["asked"] and r["output_modalities"] == ["audio"]]
            self.voices = max(self.voices, len(asked))

    def speak(self) -> None:
        """The caller has spoken: answered at once if nothing else is."""
        if not any(each["conversation_id"] for each in self.active):
            self.spoken += 1
            self._begin({}, asked=False)

    def end(self, place: int = 0, status: str = "completed") -> None:
        if self.active:
            self._end(self.active[place % len(self.active)], status)

    async def hear(self) -> None:
        if self._going:
            await self._chain.upstream.send(self._going.popleft())

    async def finish(self) -> None:
        """Go on until there is nothing left to do."""
        while not self.is_idle:
            self.end()
            while self._going:
                await self.hear()
            self.read()

    def _begin(self, response: Json, *, asked: bool = True) -> None:
        self._count += 1
        made = {
            "id": f"r{self._count}",
            "conversation_id": None if response.get("conversation") == "none" else "conv",
            "output_modalities": response.get("output_modalities", ["audio"]),
            "metadata": response.get("metadata"),
            "asked": asked,
            "output": [],
        }
        self.active.append(made)
        self._say("response.created", response=made | {"status": "in_progress"})

    def _end(self, response: Json, status: str) -> None:
        self.active.remove(response)
        self._say("response.done", response=response | {"status": status})

    def _say(self, kind: str, **what: Any) -> None:
        self._going.append({"type": kind, "event_id": f"up{len(self._going)}", **what})


ASKS = [
    *("create", "create with id", "create with metadata", "invalid create", "audible", "silent", "item"),
    *("plugin", "plugin, audible", "plugin, invalid"),
]
STEPS = [*ASKS, "cancel", "read", "read", "hear", "hear", "end", "end any", "fail", "speak"]


async def ask(chain: ChainHarness, step: str, name: str) -> None:
    wish: Json = {"instructions": f"{name} {'invalid' * ('invalid' in step)}"}
    if "audible" in step:
        wish |= AUDIBLE
    create: Json = {"type": "response.create", "response": wish}
    if step == "item":
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": name}]}
        await chain.client.send({"type": "conversation.item.create", "item": item})
    elif step.startswith("plugin"):
        chain.session.view("writer").send_upstream(Event(create), audible=True)
        await chain.settle()
    else:
        if step == "silent":
            wish |= SILENT
        if step == "create with metadata":
            wish["metadata"] = {"mine": "always the same"}
        if step == "create with id":
            create["event_id"] = name
        await chain.client.send(create)


async def converse(steps: list[str]) -> None:
    stages: dict[str, Any] = {"writer": Writer, "response-lock": (ResponseLock, {"max_waiting": 10_000})}
    async with ChainHarness(stages) as chain:
        model = Model(chain)
        asked: list[tuple[str, str]] = []
        for number, step in enumerate(steps):
            if step in ASKS:
                asked.append((f"n{number}", step))
                await ask(chain, step, f"n{number}")
            match step:
                case "cancel":
                    await chain.client.send({"type": "response.cancel"})
                case "read":
                    model.read()
                case "hear":
                    await model.hear()
                case "end" | "end any" | "fail":
                    model.end(number if step == "end any" else 0, "failed" if step == "fail" else "completed")
                case "speak":
                    model.speak()
        await model.finish()
        check(chain, model, asked)


def check(chain: ChainHarness, model: Model, asked: list[tuple[str, str]]) -> None:
    client = chain.client.take()
    # None lost, none twice.
    assert sorted(model.read_names) == sorted(name for name, _ in asked)
    # Order kept among what waits for each other; a lost race puts a create behind items that had left.
    creates = [name for name, step in asked if step not in ("item", "silent")]
    assert [name for name in model.read_names if name in set(creates)] == creates
    if not model.refused:
        order = [name for name, step in asked if step != "silent"]
        assert [name for name in model.read_names if name in set(order)] == order
    # None refused: only the caller's voice wins against a create, once each time, and nobody is told.
    assert model.refused <= model.spoken
    codes = [event["error"]["code"] for event in client if event["type"] == "error"]
    assert "conversation_already_has_active_response" not in codes
    assert codes.count("invalid_value") == sum(step == "invalid create" for _, step in asked)
    # Never two voices.
    assert model.voices <= 1
    # The client sees what it sent, and nothing of ours.
    assert b"rtpipe" not in msgspec.json.encode(client)
    shown = [event["response"]["metadata"] for event in client if event["type"] == "response.created"]
    named = [name for name, step in asked if step == "create with metadata"]
    assert sum(each is not None for each in shown) == len(named)
    state = chain.state("response-lock")
    assert state.is_free
    assert not state.waiting
    chain.check_fates()
    assert not chain.guard.failures
    waited = [fact.outcome for fact in chain.facts if isinstance(fact, facts.Waited)]
    assert set(waited) <= {"released", "requeued"}
    assert waited.count("requeued") == model.refused


@settings(deadline=None, max_examples=400, derandomize=True, database=None)
@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_no_create_is_lost_refused_or_overtaken(steps: list[str]) -> None:
    # Time stands still: nothing here may depend on a time limit.
    trio.run(converse, steps, clock=trio.testing.MockClock())


@settings(deadline=None, max_examples=3, derandomize=True, database=None)
@given(st.randoms(use_true_random=False))
def test_a_thousand_creates_that_cross(chance: random.Random) -> None:
    steps: list[str] = []
    while sum(step in ASKS and step != "item" for step in steps) < 1000:
        steps.append(chance.choice(STEPS))
    trio.run(converse, steps, clock=trio.testing.MockClock())
