"""OpenAI's Python client, unmodified, connects again by itself and does not know that its session went on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import trio
from openai import AsyncOpenAI

from rtpipe.session.session import Session
from tests.daemon.kit import KEY, MODEL, InProcess, in_process, simulated
from tests.daemon.wire import WAIT_S, reset

pytest.importorskip("websockets", reason="the client's realtime part is openai[realtime]")

ITEM = {"id": "u1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "a b c d"}]}
ANSWER = {"output_modalities": ["text"]}
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Relay:
    """Carries bytes between the client and the gateway, until it is cut."""

    def __init__(self, nursery: trio.Nursery, gateway: InProcess) -> None:
        self._nursery = nursery
        self._gateway = gateway
        self._streams: list[trio.SocketStream] = []
        self._is_open = trio.Event()
        self._is_open.set()

    async def serve(self, client: trio.SocketStream) -> None:
        await self._is_open.wait()
        gateway = await trio.open_tcp_stream(*self._gateway.address)
        self._streams += [client, gateway]
        async with client, gateway, trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, client, gateway)
            nursery.start_soon(self._carry, gateway, client)

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(*GONE):
            async for data in source:
                await sink.send_all(data)
        with suppress(*GONE):
            await sink.send_eof()

    def cut(self) -> Session:
        """Reset both sides; who comes waits until the answer is over. Returns the session."""
        (session,) = self._gateway.process.sessions.values()
        self._is_open = trio.Event()
        self._nursery.start_soon(self._open_later, session)
        for stream in self._streams:
            reset(stream)
        self._streams.clear()
        return session

    async def _open_later(self, session: Session) -> None:
        await session.answered()
        self._is_open.set()


async def talk(port: int, relay: Relay) -> tuple[list[Any], Session]:
    """What the client sees from its new connection on, and the session."""
    openai = AsyncOpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{port}/v1")
    key = {"rtpipe_session": "a-session-of-my-own"}
    async with (
        openai,
        openai.realtime.connect(model=MODEL, extra_query=key, on_reconnecting=lambda _: None) as connection,
    ):
        events = aiter(connection)  # recv() alone would not connect again
        while (await anext(events)).type != "session.created":
            pass
        await connection.conversation.item.create(item=ITEM)
        await connection.response.create(response=ANSWER)
        while (await anext(events)).type != "response.output_text.delta":
            pass
        session = trio.from_thread.run_sync(relay.cut)
        while (seen := await anext(events)).type != "session.created":
            assert seen.type.startswith("response."), seen  # what had arrived before
        after = [seen]
        await connection.conversation.item.create(item=ITEM)  # the conversation, as it knows it
        await connection.response.create(response=ANSWER)
        while after[-1].type != "response.done":
            after.append(await anext(events))
        return after, session


async def test_it_gets_no_tail_and_what_it_tells_again_is_answered_once(text: Any) -> None:
    async with (
        simulated(pace=0.2) as url,
        in_process(text(url)) as gateway,
        trio.open_nursery() as nursery,
    ):
        relay = Relay(nursery, gateway)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, relay.serve, [listener])
        talking = talk(listener.socket.getsockname()[1], relay)
        with trio.fail_after(WAIT_S):
            after, session = await trio.to_thread.run_sync(asyncio.run, talking, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    kinds = [event.type for event in after]
    echoes = [e for e in after if e.type.startswith("conversation.item.") and e.item.id == "u1"]
    assert [e.type for e in echoes] == ["conversation.item.added", "conversation.item.done"]
    # Of the first answer, whose beginning the first connection had, there is nothing.
    assert kinds.count("response.created") == kinds.count("response.done") == 1
    response_id = after[-1].response.id
    assert {e.response_id for e in after if hasattr(e, "response_id") and e.response_id} == {response_id}
    assert [item["role"] for item in session.upstream_edge.carried.log.items] == [
        "user",
        "assistant",
        "assistant",
    ]
