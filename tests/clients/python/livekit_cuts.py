"""Calls that are cut somewhere, by LiveKit's plugin: it connects again by itself, with the same address, and
tells the conversation again."""

import asyncio
import logging
import secrets
from typing import Any

import aiohttp
from caller import Caller, Event, through
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai
from turns import MATERIAL, SNIPPET, attempt, chunks

logging.disable(logging.CRITICAL)
AT_ONCE = 12


async def one(http: aiohttp.ClientSession, name: str) -> None:
    names: dict[str, Any] = {"key": secrets.token_urlsafe()}
    exec(SNIPPET.replace("gpt-realtime-2.1", f"gpt-realtime-2.1-{name}"), names)  # noqa: S102
    model: openai.realtime.RealtimeModel = names["model"]
    model._http_session = http
    session = model.session()
    events: asyncio.Queue[Event] = asyncio.Queue()
    session.on("openai_server_event_received", events.put_nowait)

    async def send(event: Event) -> None:
        session.send_event(event)

    async def speak(pcm: bytes) -> None:
        for chunk in chunks(pcm):
            session.push_audio(rtc.AudioFrame(chunk, 24000, 1, len(chunk) // 2))

    caller = Caller(send, speak, counts=False)

    async def listen() -> None:
        while True:
            await caller.hear(await events.get())

    async def call() -> None:
        await caller.call()
        same_items(session.chat_ctx)

    try:
        await through(listen(), call())
    finally:
        await session.aclose()


def same_items(context: llm.ChatContext) -> None:
    """No item is there twice, and every call has its result."""
    ids = [item.id for item in context.items]
    calls = {item.call_id for item in context.items if item.type == "function_call"}
    outputs = {item.call_id for item in context.items if item.type == "function_call_output"}
    if len(ids) != len(set(ids)) or calls != outputs:
        raise AssertionError(f"{[(item.id, item.type) for item in context.items]}")


async def main() -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def limited(http: aiohttp.ClientSession, name: str) -> None:
        async with turns:
            await attempt(name, one(http, name))

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(limited(http, name) for name in MATERIAL["calls"]))


asyncio.run(main())
