"""The official SDK, unmodified, against the simulated model over a real socket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from openai import AsyncOpenAI

from rtpipe.sim import SimOptions, serve
from tests.sim.kit import silence, tone, tool

WAIT_SECONDS = 10


async def with_sdk(use: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `use(connection)` returns, run on asyncio in a thread."""
    async with trio.open_nursery() as nursery:
        options = SimOptions(pace=0, api_keys=frozenset({"sk-test"}))
        host, port = await nursery.start(serve, options)

        async def run() -> Any:
            url = f"ws://{host}:{port}/v1"
            async with (
                AsyncOpenAI(api_key="sk-test", websocket_base_url=url) as openai,
                openai.realtime.connect(model="gpt-realtime-2.1") as connection,
            ):
                return await asyncio.wait_for(use(connection), WAIT_SECONDS)

        result = await trio.to_thread.run_sync(asyncio.run, run())
        nursery.cancel_scope.cancel()
    return result


async def until(connection: Any, kind: str) -> list[Any]:
    seen = [await connection.recv()]
    while seen[-1].type != kind:
        seen.append(await connection.recv())
    return seen


async def test_a_spoken_turn() -> None:
    async def use(connection: Any) -> list[Any]:
        await until(connection, "session.created")
        pcm = silence(400) + tone(600) + silence(600)
        for at in range(0, len(pcm), 4800):
            chunk = base64.b64encode(pcm[at : at + 4800]).decode()
            await connection.input_audio_buffer.append(audio=chunk)
        return await until(connection, "response.done")

    events = await with_sdk(use)
    audio = b"".join(base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta")
    assert len(audio) > 48 * 1000
    assert events[-1].response.output[0].content[0].transcript == "I heard 1.4 seconds of audio."
    assert events[-1].response.usage.total_tokens > 0


async def test_a_tool() -> None:
    async def use(connection: Any) -> str:
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "tools": [tool("dice")]}
        )
        ask = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "call dice"}]}
        await connection.conversation.item.create(item=ask)
        await connection.response.create()
        (call,) = (await until(connection, "response.done"))[-1].response.output
        assert (call.name, call.arguments) == ("dice", "{}")
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": "4"}
        )
        await connection.response.create()
        return (await until(connection, "response.done"))[-1].response.output[0].content[0].text

    assert await with_sdk(use) == "The tool answered: 4"
