"""OpenAI's Python client in a thread of its own, and what a turn of text and one of audio give it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import trio
from openai import AsyncOpenAI

from tests.daemon.wire import WAIT_S
from tests.sim.kit import silence, tone

MODEL = "gpt-realtime-2.1"


async def turns(
    base_url: str, key: str, options: dict[str, Any] | None = None, **more: Any
) -> tuple[str, int]:
    """What the model answers in text, and how many bytes of audio it speaks. *options* are websockets'."""

    async def run() -> tuple[str, int]:
        async with (
            AsyncOpenAI(base_url=base_url, api_key=key, **more) as openai,
            openai.realtime.connect(model=MODEL, websocket_connection_options=options or {}) as connection,
        ):
            return await asyncio.wait_for(_turns(connection), WAIT_S)

    return await trio.to_thread.run_sync(asyncio.run, run(), abandon_on_cancel=True)


async def _turns(connection: Any) -> tuple[str, int]:
    await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
    content = [{"type": "input_text", "text": "Hello."}]
    await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await connection.response.create()
    done = (await _until(connection, "response.done"))[-1]
    text = done.response.output[0].content[0].text
    await connection.session.update(session={"type": "realtime", "output_modalities": ["audio"]})
    await _until(connection, "session.updated")
    pcm = silence(400) + tone(600) + silence(600)
    for at in range(0, len(pcm), 4800):
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + 4800]).decode())
    heard = await _until(connection, "response.done")
    deltas = [base64.b64decode(event.delta) for event in heard if event.type == "response.output_audio.delta"]
    return text, sum(map(len, deltas))


async def _until(connection: Any, kind: str) -> list[Any]:
    seen = [await connection.recv()]
    while seen[-1].type != kind:
        assert seen[-1].type != "error", seen[-1]
        seen.append(await connection.recv())
    return seen
