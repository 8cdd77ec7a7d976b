"""A long scripted call through a session to simulated models, and what it comes to when it is cut.

``python -m tests.session.cuts`` cuts the model's connection at every event boundary and prints
what became of it.
"""

from __future__ import annotations

import base64
import math
import struct
import sys
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import trio
import trio.testing

from rtpipe import facts
from rtpipe.protocol import items
from rtpipe.sim import SimOptions
from rtpipe.testing import ChainHarness
from rtpipe.testing.sim import sim_upstream

TOOL = {"type": "function", "name": "dice", "parameters": {"type": "object", "properties": {}}}
CONFIG = {
    "type": "realtime",
    "instructions": "Be brief.",
    "tools": [TOOL],
    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
}
PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", 32, 20, 8, 2, 0, 0, 0) + b"\0\0\0\0"
).decode()


def tone(seconds: float, loud: bool = True) -> str:
    """Audio as PCM of 24 kHz, in base64."""
    samples = (int(9000 * math.sin(i / 8)) if loud else 0 for i in range(int(24000 * seconds)))
    return base64.b64encode(b"".join(struct.pack("<h", sample) for sample in samples)).decode()


SPOKEN = 6
"""The place of what the caller says aloud."""
LOUD, QUIET = tone(0.1), tone(0.1, loud=False)


class Upstreams:
    """Simulated models, one after the other; the first of them has a fault."""

    def __init__(self, *faults: str, **options: Any) -> None:
        self.faults = faults
        self.options = options
        self.logs: list[list[str]] = []

    def __call__(self, nursery: trio.Nursery) -> Any:
        log: list[str] = []
        self.logs.append(log)
        faults = self.faults if len(self.logs) == 1 else ()
        options = SimOptions(
            **{"pace": 0, "seed": len(self.logs), **self.options}, faults=faults, log=log.append
        )
        return sim_upstream(nursery, options)


class Caller:
    """Plays the client: says the next thing when the last one was answered, and answers calls."""

    def __init__(self, chain: ChainHarness) -> None:
        self.chain = chain
        self.events: list[dict[str, Any]] = []
        self.done = 0
        self.failed = 0
        self.answered: set[str] = set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What came of one type."""
        return [event for event in self.events if event["type"] == kind]

    async def see(self) -> None:
        for event in self.chain.client.take():
            self.events.append(event)
            if event["type"] == "response.done":
                await self._ended(event["response"])

    async def _ended(self, response: dict[str, Any]) -> None:
        if response["status"] != "completed":
            self.failed += 1
            return
        self.done += 1
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        for call in calls:
            assert call["call_id"] not in self.answered
            self.answered.add(call["call_id"])
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": '"six"'}
            await self.say("conversation.item.create", item={"id": f"out_{len(self.answered)}", **output})
        if calls:
            await self.say("response.create")

    async def say(self, kind: str, **fields: Any) -> None:
        await self.chain.client.send({"type": kind, **fields})

    async def answered_all(self, count: int) -> None:
        with trio.fail_after(100):
            while self.done < count:
                await trio.sleep(0.05)
                await self.see()

    async def text(self, item_id: str, text: str, *parts: dict[str, Any]) -> None:
        content = [{"type": "input_text", "text": text}, *parts]
        message = {"id": item_id, "type": "message", "role": "user", "content": content}
        await self.say("conversation.item.create", item=message)
        await self.say("response.create", response={"output_modalities": ["text"]})

    async def call(self) -> None:
        """The whole conversation."""
        await self.say("session.update", session=CONFIG, event_id="configured")
        await self.text("u1", "how are you")
        await self.answered_all(1)
        await self.text("u2", "call dice")
        await self.answered_all(3)
        for sound in (*[LOUD] * 8, *[QUIET] * 8):
            await self.say("input_audio_buffer.append", audio=sound)
        await self.answered_all(4)
        await self.text(
            "u3", "and this", {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
        )
        await self.answered_all(5)
        await self.text("u4", "not this")
        await self.answered_all(6)
        await self.say("conversation.item.delete", item_id="u4")
        await self.text("u5", "good bye")
        await self.answered_all(7)
        await trio.sleep(2)
        await self.see()


def log_of(chain: ChainHarness) -> list[tuple[str, str]]:
    """The conversation: who said what, as another model would be told it."""
    said = []
    for item in chain.session.upstream_edge.carried.log.items:
        told = items.replayable(item)
        assert told is not None
        texts = [part.get("text") or part.get("image_url", "") for part in items.parts_of(told)]
        what = told.get("output") or told.get("arguments") or " ".join(texts)
        said.append((told.get("role") or told["type"], what))
    return said


def losses(chain: ChainHarness) -> list[str]:
    return [f.cause for f in chain.facts if isinstance(f, facts.LegChanged) and f.change == "replaced"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call came to."""

    events_of_first: int
    log: list[tuple[str, str]]
    ids: set[str]
    """Of the items in it."""
    losses: list[str]
    caller: Caller
    upstreams: Upstreams


async def call(*faults: str, stages: Any = None, **options: Any) -> Outcome:
    """The whole call, with faults of the first upstream. Raises ``trio.TooSlowError`` if it never ends."""
    upstreams = Upstreams(*faults, **options)
    async with ChainHarness(stages or {}, upstream=upstreams, redials=True) as chain:
        chain.session.upstream_edge.retries = True
        caller = Caller(chain)
        await caller.call()
        chain.check_fates()
        ids = {item["id"] for item in chain.session.upstream_edge.carried.log.items}
        return Outcome(len(upstreams.logs[0]), log_of(chain), ids, losses(chain), caller, upstreams)


def differences(outcome: Outcome, undisturbed: Outcome) -> list[str]:
    """What is not as it was to be, but for what the report names."""
    found, caller, lost = [], outcome.caller, " ".join(outcome.losses)
    if caller.done != undisturbed.caller.done or caller.failed != lost.count("cut off"):
        found.append(f"{caller.done} answers, {caller.failed} cut")
    expected = list(undisturbed.log)
    if "without words" in lost:
        expected[SPOKEN] = ("user", items.NOT_HEARD)
    for (who, what), (role, words) in zip_longest(outcome.log, expected, fillvalue=("", "")):
        # An answer that was asked for again was made from the words, not from the sound.
        if (who, what) != (role, words) and not (lost and role == who == "assistant"):
            found.append(f"{who}: {what} instead of {role}: {words}")
    added = [events_.get("item", {}).get("id") for events_ in caller.of("conversation.item.added")]
    if len(added) != len(set(added)):
        found.append("an item was added twice")
    deleted = {event["item_id"] for event in caller.of("conversation.item.deleted")}
    if set(added) - deleted != outcome.ids:
        found.append(f"the client knows other items: {set(added) - deleted} instead of {outcome.ids}")
    if errors := caller.of("error"):
        found.append(f"{errors}")
    return found


def main() -> None:
    clock = trio.testing.MockClock
    undisturbed = trio.run(call, clock=clock(autojump_threshold=0))
    for count in range(undisturbed.events_of_first):
        outcome = trio.run(call, f"drop after {count} events", clock=clock(autojump_threshold=0))
        found = differences(outcome, undisturbed) or "as undisturbed"
        sys.stdout.write(f"{count} {found} {outcome.losses}\n")


if __name__ == "__main__":
    main()
