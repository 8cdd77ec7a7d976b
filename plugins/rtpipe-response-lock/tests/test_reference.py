"""Against models that keep the rule: the simulated one, and a reference whose every step the test decides."""

import base64
from collections import deque
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import Event, Json, Plugin
from rtpipe.testing import ChainHarness, SimOptions, sim_upstream
from rtpipe_response_lock import ResponseLock


class Asker(Plugin[None, None]):
    """A stage whose view the test uses to ask for responses."""


# --- the simulated model, which speaks in real time


def simulated(stages: dict[str, Any]) -> ChainHarness:
    return ChainHarness(stages, upstream=lambda nursery: sim_upstream(nursery, SimOptions(pace=1, seed=1)))


async def answers(chain: ChainHarness, count: int) -> tuple[list[str], list[str]]:
    """Have a client and a stage ask crosswise, wait, and return what the client saw: (ends, errors)."""
    for number in range(count):
        if number % 3 == 2:
            chain.session.view("asker").send_upstream(Event({"type": "response.create"}), audible=True)
        else:
            await chain.client.send({"type": "response.create"})
    await trio.sleep(25 * count)
    seen = chain.client.take()
    ends = [event["response"]["status"] for event in seen if event["type"] == "response.done"]
    return ends, [event["error"]["code"] for event in seen if event["type"] == "error"]


async def test_the_simulated_model_refuses_none(autojump_clock: Any) -> None:
    async with simulated({"asker": Asker, "response-lock": ResponseLock}) as chain:
        assert await answers(chain, 9) == (["completed"] * 9, [])
        chain.check_fates()
    async with simulated({"asker": Asker}) as chain:
        ends, errors = await answers(chain, 9)
        # What the lock is for. (The errors about the stage's creates are not the client's to see.)
        assert (ends, set(errors)) == (["completed"], {"conversation_already_has_active_response"})


async def test_speech_interrupts_and_what_waits_comes_after_the_answer_to_it(autojump_clock: Any) -> None:
    speech = base64.b64encode(b"\x00\x20" * 24_000).decode()
    silence = base64.b64encode(b"\x00\x00" * 24_000).decode()
    async with simulated({"response-lock": ResponseLock}) as chain:
        await chain.client.send({"type": "response.create"})
        await chain.client.send({"type": "input_audio_buffer.append", "audio": speech})
        # the answer was interrupted; this one begins, and the one that answers the speech is not made
        await chain.client.send({"type": "response.create"})
        await trio.sleep(60)
        await chain.client.send({"type": "input_audio_buffer.append", "audio": silence})
        await chain.client.send({"type": "response.create"})
        await trio.sleep(60)
        seen = chain.client.take()
        assert [event for event in seen if event["type"] == "error"] == []
        ends = [event["response"]["status"] for event in seen if event["type"] == "response.done"]
        assert ends == ["cancelled", "completed", "completed", "completed"]


# --- a reference whose every step the test decides


class Reference:
    """An upstream that keeps the rule: one response at a time; the next create is refused and forgotten.

    It takes what was sent to it, accepts, announces and ends responses only when it is told to.
    """

    def __init__(self, chain: ChainHarness) -> None:
        self._chain = chain
        self._unread: deque[Json] = deque()
        self._active: Json | None = None
        self._announced = False
        self._aside: Json | None = None
        self._count = 0
        self.log: list[str] = []
        """What it has read, in order, without cancels."""
        self.refusals = 0
        self.spoken = 0

    async def read(self) -> None:
        self._unread.extend(self._chain.upstream.take())
        if not self._unread:
            return
        event = self._unread.popleft()
        if event["type"] == "response.cancel":
            await self.end("cancelled")
            return
        response = event.get("response", {})
        self.log.append(event.get("item", {}).get("id") or response["instructions"])
        if event["type"] != "response.create":
            return
        if response.get("conversation") == "none":
            aside = self._new(response, None)
            await self._say("response.created", aside)
            await self._say("response.done", aside | {"status": "completed"})
        elif self._active is not None:
            self.refusals += 1
            error = {"code": "conversation_already_has_active_response", "event_id": event.get("event_id")}
            await self._chain.upstream.send({"type": "error", "event_id": "e", "error": error})
        elif "refuse" in response["instructions"]:
            error = {"code": "invalid_value", "param": "response.x", "event_id": event.get("event_id")}
            await self._chain.upstream.send({"type": "error", "event_id": "e", "error": error})
        else:
            self._active, self._announced = self._new(response, "conv"), False

    async def announce(self) -> None:
        if self._active is not None and not self._announced:
            self._announced = True
            await self._say("response.created", self._active)

    async def end(self, status: str = "completed") -> None:
        if self._active is not None:
            await self.announce()
            done, self._active = self._active, None
            await self._say("response.done", done | {"status": status})

    async def answer_speech(self) -> None:
        if self._active is None:
            self.spoken += 1
            self._active, self._announced = self._new({}, "conv"), False

    async def finish(self) -> None:
        """Go on until there is nothing left to do."""
        while self._unread or self._chain.upstream.payloads or self._active is not None:
            await self.end()
            await self.read()

    def _new(self, asked: Json, conversation: str | None) -> Json:
        self._count += 1
        metadata = asked.get("metadata")
        return {"id": f"r{self._count}", "conversation_id": conversation, "metadata": metadata, "output": []}

    async def _say(self, kind: str, response: Json) -> None:
        await self._chain.upstream.send({"type": kind, "event_id": "e", "response": response})


ASKS = ["create", "create without id", "refused create", "out of band", "item", "plugin", "plugin, refused"]
STEPS = [*ASKS, "cancel", "read", "announce", "end", "speech"]


async def ask(chain: ChainHarness, step: str, name: str) -> None:
    create: Json = {
        "type": "response.create",
        "response": {"instructions": f"{name} {'refuse' * ('refused' in step)}"},
    }
    if step == "item":
        await chain.client.send({"type": "conversation.item.create", "item": {"id": name}})
    elif step.startswith("plugin"):
        chain.session.view("asker").send_upstream(Event(create))
        await chain.settle()
    else:
        if step == "out of band":
            create["response"]["conversation"] = "none"
        if step != "create without id":
            create["event_id"] = name
        await chain.client.send(create)


async def converse(steps: list[str]) -> None:
    async with ChainHarness({"asker": Asker, "response-lock": ResponseLock}) as chain:
        model = Reference(chain)
        asked = []
        for number, step in enumerate(steps):
            if step in ASKS:
                asked.append(f"n{number}")
                await ask(chain, step, asked[-1])
            elif step == "cancel":
                await chain.client.send({"type": "response.cancel"})
            else:
                await {
                    "read": model.read,
                    "announce": model.announce,
                    "end": model.end,
                    "speech": model.answer_speech,
                }[step]()
        await model.finish()
        assert [entry.split()[0] for entry in model.log] == asked
        # Only a response to speech can win against a create that is on its way, and against one only.
        assert model.refusals <= model.spoken
        state = chain.state("response-lock")
        assert (state.asked, state.running) == (None, None)
        chain.check_fates()
        assert not chain.guard.failures
        assert not [fact for fact in chain.facts if getattr(fact, "outcome", "released") != "released"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_no_create_is_lost_refused_or_overtaken(steps: list[str]) -> None:
    # Time stands still: nothing here may depend on a time limit.
    trio.run(converse, steps, clock=trio.testing.MockClock())
