"""Whatever tools do, whenever the caller speaks: every call is answered once, and every result heard."""

from collections import Counter
from typing import Any

import msgspec
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import HookFailed, Plugin, Tool, ToolCall
from rtpipe.testing import ChainHarness
from rtpipe_tool_dispatcher import ToolDispatcher

NAMES = ("safe", "cancellable", "late")
Calls = list[tuple[str, float | None]]
calls = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.sampled_from([0.0, 1.0, 4.9, 5.1, 7.0]))),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.one_of(
        calls.map(lambda drawn: ("calls", drawn)),
        st.sampled_from([0.5, 2.0, 6.0]).map(lambda seconds: ("wait", seconds)),
        st.sampled_from([("speak", None), ("cancel", None)]),
    ),
    max_size=8,
)


class Tools(Plugin[None, None]):
    """Each call says itself how long it takes; None: it raises."""

    def tools(self) -> list[Tool]:
        late = {"late": "offer"}
        return [
            Tool(
                name=name,
                description="",
                parameters={"type": "object"},
                cancellable=name == "cancellable",
                **(late if name == "late" else {}),  # type: ignore[arg-type]
            )
            for name in NAMES
        ]

    async def tool_call(self, call: ToolCall) -> str | None:
        seconds = msgspec.json.decode(call.arguments)["seconds"]
        if seconds is None:
            raise HookFailed("tools", "tool_call", "as told")
        await trio.sleep(seconds)
        return "done"


class Model:
    """Takes every item at once; answers a create for a second, or refuses it while it speaks."""

    def __init__(self, chain: ChainHarness, nursery: trio.Nursery) -> None:
        self.chain = chain
        self.nursery = nursery
        self.outputs: Counter[str] = Counter()
        self.unheard = 0
        """Results that no response has begun after."""
        self.running = 0
        self.count = 0

    async def send(self, kind: str, **fields: Any) -> None:
        await self.chain.upstream.connection.send(msgspec.json.encode({"type": kind, **fields}))

    async def serve(self) -> None:
        while True:
            for event in self.chain.upstream.take():
                if event["type"] == "conversation.item.create":
                    item = event["item"]
                    self.outputs[item.get("call_id", "message")] += 1
                    self.unheard += "Cancelled: " not in str(item)
                    await self.send("conversation.item.added", previous_item_id=None, item=item)
                elif event["type"] == "response.create":
                    out_of_band = event["response"].get("conversation") == "none"
                    if self.running and not out_of_band:
                        code = "conversation_already_has_active_response"
                        await self.send("error", error={"code": code, "event_id": event["event_id"]})
                        continue
                    self.nursery.start_soon(self.answer, event["response"]["metadata"], out_of_band)
            await trio.sleep(0.1)

    async def answer(self, metadata: Any, out_of_band: bool) -> None:
        self.count += 1
        if not out_of_band:
            self.running += 1
            self.unheard = 0
        response = {"id": f"answer_{self.count}", "metadata": metadata}
        place = {"conversation_id": None if out_of_band else "c"}
        await self.send("response.created", response={**response, **place})
        await trio.sleep(1)
        await self.send("response.done", response={**response, **place, "status": "completed"})
        self.running -= not out_of_band

    async def call(self, drawn: Calls, number: int) -> None:
        response = f"calls_{number}"
        self.running += 1
        self.unheard = 0
        await self.send("response.created", response={"id": response, "conversation_id": "c"})
        for index, (name, seconds) in enumerate(drawn):
            item = {"id": f"item_{number}_{index}", "type": "function_call", "name": name}
            item |= {"call_id": f"call_{number}_{index}", "status": "completed"}
            item |= {"arguments": msgspec.json.encode({"seconds": seconds}).decode()}
            await self.send("response.output_item.added", response_id=response, item=item)
            await self.send("response.output_item.done", response_id=response, item=item)
        await self.send("response.done", response={"id": response, "status": "completed", "output": []})
        self.running -= 1

    async def speak(self) -> None:
        await self.send("input_audio_buffer.speech_started", item_id="u")
        await trio.sleep(0.5)
        await self.send("input_audio_buffer.speech_stopped", item_id="u")
        await self.send("input_audio_buffer.committed", item_id="u")


async def conversation(script: list[tuple[str, Any]]) -> None:
    stages = {"tools": Tools, "tool-dispatcher": ToolDispatcher}
    async with ChainHarness(stages) as chain, trio.open_nursery() as nursery:
        model = Model(chain, nursery)
        nursery.start_soon(model.serve)
        expected = []
        for number, (step, what) in enumerate(script):
            if step == "calls":
                expected += [f"call_{number}_{index}" for index in range(len(what))]
                await model.call(what, number)
            elif step == "wait":
                await trio.sleep(what)
            elif step == "speak":
                await model.speak()
            else:
                await chain.client.connection.send(b'{"type":"response.cancel"}')
        await trio.sleep(25)
        outputs = {name: count for name, count in model.outputs.items() if name != "message"}
        assert outputs == dict.fromkeys(expected, 1)
        state = chain.state("tool-dispatcher")
        assert [state.batches, state.outputs, state.voice.owes, state.is_asking] == [{}, {}, False, False]
        assert not model.unheard
        seen = chain.client.take()
        assert not [
            event
            for event in seen
            if event["type"] not in ("response.created", "response.done")
            and not event["type"].startswith("input_audio_buffer")
        ]
        chain.check_fates()
        nursery.cancel_scope.cancel()


@settings(max_examples=50, deadline=None)
@given(steps)
def test_every_call_is_answered_once_and_every_result_heard(script: list[tuple[str, Any]]) -> None:
    trio.run(conversation, script, clock=trio.testing.MockClock(autojump_threshold=0))
