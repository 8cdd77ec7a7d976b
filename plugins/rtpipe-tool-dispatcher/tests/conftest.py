"""A stage that offers tools, and one that asks the model, as the dispatcher sees them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from rtpipe import ANONYMOUS, Json, Plugin, Principal, Session, Tool, ToolCall, facts
from rtpipe.testing import ChainHarness, SimOptions, sim_upstream
from rtpipe_tool_dispatcher import ToolDispatcher

Function = Callable[[Json], Awaitable[str | None]]
Talk = Callable[..., AbstractAsyncContextManager["Conversation"]]


def make_tool(name: str, *required: str, description: str = "What it does.", **options: Any) -> Tool:
    """A tool whose arguments are strings."""
    parameters = {
        "type": "object",
        "properties": {each: {"type": "string"} for each in required},
        "required": list(required),
    }
    return Tool(**{"name": name, "description": description, "parameters": parameters, **options})


@pytest.fixture
def tool() -> Callable[..., Tool]:
    return make_tool


class Offer:
    """Tools and what they do; what came, and what became of it."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.functions: dict[str, Function] = {}
        self.called: list[tuple[str, str]] = []
        self.cancelled: list[str] = []

    def add(self, tool: Tool, function: Function) -> None:
        self.tools[tool.name] = tool
        self.functions[tool.name] = function

    def answers(self, what: Tool | str, answer: str | None = "done", after_s: float = 0.0) -> None:
        """A tool that returns *answer* after some seconds."""

        async def function(_: Json) -> str | None:
            await trio.sleep(after_s)
            return answer

        self.add(make_tool(what) if isinstance(what, str) else what, function)

    def raises(self, what: Tool | str, error: BaseException) -> None:
        async def function(_: Json) -> str | None:
            raise error

        self.add(make_tool(what) if isinstance(what, str) else what, function)

    def plugin(self) -> type[Plugin[Any, Any]]:
        offer = self

        class Offering(Plugin[None, None]):
            def tools(self) -> list[Tool]:
                return list(offer.tools.values())

            async def tool_call(self, session: Session[None], call: ToolCall) -> str | None:
                if call.name not in offer.functions:
                    return None
                offer.called.append((call.name, call.arguments))
                try:
                    return await offer.functions[call.name](msgspec.json.decode(call.arguments or "{}"))
                except trio.Cancelled:
                    offer.cancelled.append(call.name)
                    raise

        return Offering


class Conversation:
    """A chain with the offer's stage, and shortcuts for what these tests say over and over."""

    def __init__(self, chain: ChainHarness) -> None:
        self.chain = chain
        self.count = 0

    @property
    def state(self) -> Any:
        return self.chain.state("tool-dispatcher")

    async def calls(self, *calls: tuple[str, Any], response: str = "", done: bool = True) -> list[str]:
        """The model makes calls in one response. Returns their ids."""
        self.count += 1
        response = response or f"resp_{self.count}"
        ids = []
        await self.begins(response)
        for number, (name, arguments) in enumerate(calls):
            call_id = f"call_{self.count}_{number}"
            ids.append(call_id)
            text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
            await self.finished(response, call_id, name, text)
        if done:
            await self.ends(response)
        return ids

    async def begins(self, response: str, **more: Any) -> None:
        await self.upstream("response.created", response={"id": response, "conversation_id": "c", **more})

    async def ends(self, response: str, status: str = "completed", output: Any = ()) -> None:
        await self.upstream(
            "response.done", response={"id": response, "status": status, "output": list(output)}
        )

    async def finished(
        self, response: str, call_id: str, name: str, arguments: str, status: str = "completed"
    ) -> None:
        item = {"id": f"item_{call_id}", "type": "function_call", "call_id": call_id, "name": name}
        where = {"response_id": response, "output_index": 0}
        started = {**item, "status": "in_progress", "arguments": ""}
        over = {**item, "status": status, "arguments": arguments}
        await self.upstream("response.output_item.added", **where, item=started)
        await self.upstream("conversation.item.added", previous_item_id=None, item=started)
        await self.upstream(
            "response.function_call_arguments.done",
            **where,
            item_id=item["id"],
            call_id=call_id,
            name=name,
            arguments=arguments,
        )
        await self.upstream("conversation.item.done", previous_item_id=None, item=over)
        await self.upstream("response.output_item.done", **where, item=over)

    async def upstream(self, kind: str, **fields: Any) -> None:
        await self.chain.upstream.send({"type": kind, "event_id": f"e_{kind}", **fields})

    async def client(self, kind: str, **fields: Any) -> None:
        await self.chain.client.send({"type": kind, **fields})

    def sent(self) -> list[Json]:
        """What the model got since last asked."""
        return self.chain.upstream.take()

    async def outputs(self, *, echo: bool = True) -> dict[str, Json]:
        """The results among what the model got, by call, in envelopes; it puts them into the conversation."""
        found = {}
        for event in self.sent():
            item = event.get("item", {})
            if item.get("type") == "function_call_output":
                found[item["call_id"]] = msgspec.json.decode(item["output"])
            if item and echo:
                await self.upstream("conversation.item.added", previous_item_id=None, item=item)
        return found

    async def answer(self, name: str, arguments: Any = "{}", wait_s: float = 0.0) -> Json:
        """The envelope for a single call."""
        (call_id,) = await self.calls((name, arguments))
        await trio.sleep(wait_s)
        await self.chain.settle()
        return (await self.outputs())[call_id]

    async def turn(self) -> None:
        """The caller says something, and the model answers."""
        self.count += 1
        await self.upstream("input_audio_buffer.speech_started", item_id=f"u_{self.count}")
        await self.upstream("input_audio_buffer.speech_stopped", item_id=f"u_{self.count}")
        await self.upstream("input_audio_buffer.committed", item_id=f"u_{self.count}")
        await self.begins(f"turn_{self.count}")
        await self.ends(f"turn_{self.count}")

    def statuses(self) -> list[str]:
        return [fact.status for fact in self.chain.facts if isinstance(fact, facts.ToolCalled)]


@pytest.fixture
def offer() -> Offer:
    return Offer()


@pytest.fixture
def talk(offer: Offer) -> Talk:
    """A conversation over a chain of the offer and the dispatcher with *options*."""

    @asynccontextmanager
    async def talking(
        *,
        behind: Mapping[str, Any] | None = None,
        principal: Principal = ANONYMOUS,
        sim: SimOptions | None = None,
        **options: Any,
    ) -> AsyncIterator[Conversation]:
        upstream = None if sim is None else lambda nursery: sim_upstream(nursery, sim)
        dispatcher = (ToolDispatcher, {"filler": "none", **options})
        stages = {"offer": offer.plugin(), "tool-dispatcher": dispatcher, **(behind or {})}
        async with ChainHarness(stages, principal=principal, upstream=upstream) as chain:
            conversation = Conversation(chain)
            if upstream is None:
                chain.upstream.take()  # the announcement
            yield conversation
            assert not [failed for failed in chain.guard.failures if failed[0] == "tool-dispatcher"]

    return talking
