"""A call through a chain of every kind of stage to simulated models; its connections are cut.

``python -m tests.session.full_chain`` cuts the model's connection at every event boundary that is not one
more delta, and prints what became of it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from PIL import Image

from rtpipe import Plugin, Principal, Tool, ToolCall
from rtpipe.testing import ChainHarness, Store
from rtpipe.transport.connection import ConnectionLost
from rtpipe_auth import Auth
from rtpipe_cost_governor import CostGovernor
from rtpipe_image_compressor import ImageCompressor
from rtpipe_input_guardrail import InputGuardrail
from rtpipe_response_lock import ResponseLock
from rtpipe_tool_dispatcher import ToolDispatcher
from rtpipe_tracing import Tracing
from tests.session.cuts import CONFIG, LOUD, QUIET, Upstreams
from tests.session.outcome import TRACE, Outcome
from tests.session.test_parking import resume

FAST, SLOW, LATE = "fast", "slow", "late"
GATES = ("input-guardrail",)
"""The stages that have every turn of the caller's wait for them."""
TAKES_S = {FAST: 0.0, SLOW: 4.0, LATE: 6.0}


def picture() -> dict[str, str]:
    """A content part that image-compressor makes smaller."""
    file = io.BytesIO()
    Image.effect_noise((64, 48), 50).save(file, "PNG")
    return {
        "type": "input_image",
        "image_url": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}",
    }


class Offer(Plugin[None, None]):
    """Tools that say each time something else, so that it shows how often each answer was told."""

    def __init__(self, config: None, host: Any) -> None:
        super().__init__(config, host)
        self.answers: list[str] = []

    def tools(self) -> list[Tool]:
        parameters = {"type": "object", "properties": {}}
        return [
            Tool(name=FAST, description="At once.", parameters=parameters),
            Tool(name=SLOW, description="Takes a while.", parameters=parameters),
            Tool(name=LATE, description="Too late.", parameters=parameters, timeout_s=3.0, late="offer"),
        ]

    async def tool_call(self, call: ToolCall) -> str | None:
        if call.name not in TAKES_S:
            return None
        answer = f"{call.name}-{len(self.answers)}"
        self.answers.append(answer)
        await trio.sleep(TAKES_S[call.name])
        return answer


class Spans(SpanProcessor):
    """Every span that began, and every one that ended."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.began.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


class Traced(Tracing):
    """Keeps its spans instead of sending them."""

    def startup(self) -> None:
        self.spans = Spans()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(self.spans)


_standing = trio.lowlevel.RunVar[int]("_standing", 0)


@contextmanager
def stopped_clock() -> Iterator[None]:
    """The clock of a test does not jump meanwhile: a disk and a thread take time of another kind."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    _standing.set(_standing.get() + 1)
    clock.autojump_threshold = math.inf
    try:
        yield
    finally:
        _standing.set(_standing.get() - 1)
        if not _standing.get():
            clock.autojump_threshold = 0


class Disk:
    """A store on the disk, at which the clock stands still. Remembers what was reserved and settled."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.reserved: dict[str, int] = {}
        self.settled: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            with stopped_clock():
                result = await method(*args, **kwargs)
            if name == "reserve":
                self.reserved[kwargs["id"]] = args[1]
            elif name == "settle":
                assert args[0] not in self.settled, "settled twice"
                self.settled[args[0]] = args[1]
            return result

        return call


class Compressor(ImageCompressor):
    """Its thread takes no time of the test's."""

    async def _in_worker(self, function: Callable[..., Any], *args: Any) -> Any:
        with stopped_clock():
            return await super()._in_worker(function, *args)


def stages(budget_usd: str) -> dict[str, Any]:
    """The whole chain, client first."""
    key = {"id": "kiosk", "sha256": hashlib.sha256(b"a key").hexdigest()}
    return {
        "tracing": (Traced, {"metrics": False}),
        "auth": (Auth, {"keys": [key]}),
        "image-compressor": (Compressor, {"max_edge_px": 16}),
        "input-guardrail": (InputGuardrail, {"words": ["nobody says this"]}),
        "offer": Offer,
        "tool-dispatcher": ToolDispatcher,
        "response-lock": ResponseLock,
        "cost-governor": (CostGovernor, {"caps": {"budget_usd": budget_usd, "max_output_tokens": 300}}),
    }


class Caller:
    """Plays the client. Each of its creates has a number, by which the answer to it is known."""

    def __init__(self, chain: ChainHarness, after_each: Callable[[Caller], Awaitable[None]] | None) -> None:
        """*after_each* is called when something may have been seen, and may cut the client's connection."""
        self.chain = chain
        self.after_each = after_each
        self.events: list[dict[str, Any]] = []
        self.creates = 0
        self.connections = 1
        self.is_away = False

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What came of one type."""
        return [event for event in self.events if event["type"] == kind]

    async def say(self, kind: str, **fields: Any) -> None:
        with suppress(ConnectionLost):  # where the governor has ended it
            await self.chain.client.connection.send(msgspec.json.encode({"type": kind, **fields}))

    async def ask(self, **response: Any) -> None:
        if self.chain.session.ending is not None:
            return
        self.creates += 1
        number = str(self.creates)
        response = {"metadata": {"number": number}, **response}
        await self.say("response.create", event_id=f"create-{number}", response=response)

    async def text(self, item_id: str, text: str, *parts: dict[str, Any], **response: Any) -> None:
        content = [{"type": "input_text", "text": text}, *parts]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        await self.say("conversation.item.create", item=item)
        await self.ask(**{"output_modalities": ["text"], **response})

    async def go_away(self, seconds: float) -> None:
        """Lose the connection, and come back with another that knows where this one was."""
        self.is_away = True
        self.chain.client.connection.abort()
        await trio.sleep(seconds)
        if self.chain.session.ending is None:
            self.is_away = False
            self.connections += 1
            await resume(self.chain, self.events[-1]["event_id"])

    async def listen(self, seconds: float) -> None:
        """Let so much time pass, and answer the calls of the client's own tool."""
        until_s = trio.current_time() + seconds
        while trio.current_time() < until_s and self.chain.session.ending is None:
            await trio.sleep(0.25)
            await self.see()

    async def see(self) -> None:
        for event in self.chain.client.take():
            self.events.append(event)
            if event["type"] == "response.done":
                await self._ended(event["response"])
        if self.after_each is not None:
            await self.after_each(self)

    async def _ended(self, response: dict[str, Any]) -> None:
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        if response["status"] != "completed":
            return
        for call in calls:
            assert call["name"] == "dice"
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": '"six"'}
            await self.say("conversation.item.create", item={"id": f"out_{call['call_id']}", **output})
        if calls:
            await self.ask(output_modalities=["text"])

    async def call(self) -> None:
        """The whole conversation; each step has time for a replacement and for every tool."""
        await self.say("session.update", session=CONFIG, event_id="configured")
        await self.text("u1", "how are you")
        await self.listen(20)
        await self.text("u2", "the first of two")
        await self.text("u3", "the second of two", picture())
        await self.listen(20)
        for number, tools in enumerate(("dice", FAST, SLOW, LATE, f"{FAST} and call {SLOW}"), 4):
            await self.text(f"u{number}", f"call {tools}")
            await self.listen(20)
        for sound in (*[LOUD] * 8, *[QUIET] * 8):
            await self.say("input_audio_buffer.append", audio=sound)
        await self.listen(20)
        await self.text("u9", "good bye", output_modalities=["audio"])
        await self.listen(60)


async def call(
    *faults: str,
    without: tuple[str, ...] = (),
    retries: bool = False,
    outage_s: float = 0.0,
    after_each: Callable[[Caller], Awaitable[None]] | None = None,
    budget_usd: str = "5",
) -> Outcome:
    """The whole call, with faults of the first upstream, and so much time until there is another."""
    upstreams = Upstreams(*faults, pace=10)
    chosen = {name: stage for name, stage in stages(budget_usd).items() if name not in without}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        store = await stack.enter_async_context(Store.at(Path(folder) / "store.sqlite3"))
        disk = Disk(store.namespace("cost-governor"))
        async with ChainHarness(
            chosen,
            store=lambda stage: disk if stage == "cost-governor" else Disk(store.namespace(stage)),
            principal=Principal(id="kiosk"),
            upstream=upstreams,
            redials=True,
            traceparent=f"00-{TRACE}-b7ad6b7169203331-01",
        ) as chain:
            chain.session.upstream_edge.retries = retries
            redial = chain.session.replacement.redial
            assert redial is not None

            async def late() -> Any:
                await trio.sleep(outage_s)
                return await redial()

            chain.session.replacement.redial = late
            chain.session.parking.allow()
            caller = Caller(chain, after_each)
            await caller.call()
            await caller.see()
            assert chain.guard.failures == {}
        outcome = Outcome(chain, caller, upstreams, disk)
        await outcome.read_ledger()
        return outcome


def away_after(count: int, seconds: float) -> Callable[[Caller], Awaitable[None]]:
    """Has the client lose its connection, once it has seen so many events."""

    async def go(caller: Caller) -> None:
        if len(caller.events) > count and caller.connections == 1 and caller.chain.session.ending is None:
            await caller.go_away(seconds)

    return go


def events_of_first(outcome: Outcome) -> list[dict[str, Any]]:
    """What passed over the first connection to a model, in both directions."""
    lines = [msgspec.json.decode(line) for line in outcome.upstreams.logs[0]]
    return [line["event"] for line in lines if "event" in line]


def boundaries(outcome: Outcome) -> list[int]:
    """After how many events of the first connection something else than one more delta has happened."""
    events = events_of_first(outcome)
    return [count for count, event in enumerate(events, 1) if not event["type"].endswith(".delta")]


def run(*faults: str, **options: Any) -> Outcome:
    """`call` on a clock that jumps."""

    async def whole() -> Outcome:
        return await call(*faults, **options)

    return trio.run(whole, clock=trio.testing.MockClock(autojump_threshold=0))


def main() -> None:
    """With ``ungated`` the model answers the caller's voice by itself; with ``retries`` what is cut is asked
    again."""
    options: dict[str, Any] = {
        "retries": "retries" in sys.argv,
        "without": GATES if "ungated" in sys.argv else (),
    }
    for count in boundaries(run(**options)):
        outcome = run(f"drop after {count} events", **options)
        sys.stdout.write(f"{count} {outcome.faults() or 'in order'}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
