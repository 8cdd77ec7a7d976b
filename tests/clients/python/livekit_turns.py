"""Runs behind the snippet for LiveKit's plugin: one RealtimeSession for each turn, and no LiveKit server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai
from turns import AUDIO, DISPATCHED, GREETING, LONG, MATERIAL, SNIPPET, SPEECH, attempt, chunks, same, unseen

logging.disable(logging.CRITICAL)


@llm.function_tool
async def dice(sides: int) -> str:
    """Rolls."""
    return "4"


class Talk:
    """One session, and the server events nobody has waited for yet."""

    def __init__(self, session: llm.RealtimeSession) -> None:
        self.session = session
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        session.on("openai_server_event_received", self._events.put_nowait)

    async def event(self) -> dict[str, Any]:
        return await self._events.get()

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            event = await self.event()
            if event["type"] == kind:
                return event
            if event["type"] == "error":
                raise AssertionError(f"{event['error']} before {kind}")

    async def answer(self) -> str:
        content = (await self.until("response.done"))["response"]["output"][0]["content"][0]
        return content.get("text") or content.get("transcript")

    async def write(self, *content: Any) -> None:
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=list(content))
        await self.session.update_chat_ctx(context)

    def speak(self, pcm: bytes) -> None:
        for chunk in chunks(pcm):
            self.session.push_audio(rtc.AudioFrame(chunk, 24000, 1, len(chunk) // 2))


async def text(talk: Talk) -> None:
    await talk.write(GREETING)
    await talk.session.generate_reply()
    same(await talk.answer(), f"You said: {GREETING}")


async def audio(talk: Talk) -> None:
    talk.session.update_options(turn_detection=None)
    await talk.until("session.updated")
    talk.speak(AUDIO)
    talk.session.commit_audio()
    await talk.session.generate_reply()
    same(await talk.answer(), "I heard 0.5 seconds of audio.")


async def heard_audio(talk: Talk) -> None:
    talk.speak(SPEECH)
    await talk.until("input_audio_buffer.speech_stopped")
    same((await talk.answer())[:8], "I heard ")


async def image(talk: Talk) -> None:
    await talk.write(llm.ImageContent(image=MATERIAL["image"]))
    await talk.session.generate_reply()
    same(await talk.answer(), "I see a PNG image, 640 x 480.")


async def tool(talk: Talk) -> None:
    await talk.session.update_tools([dice])
    await talk.write('call dice {"sides": 6}')
    await talk.session.generate_reply()
    (call,) = (await talk.until("response.done"))["response"]["output"]
    same((call["name"], call["arguments"]), ("dice", '{"sides": 6}'))
    context = talk.session.chat_ctx.copy()
    output = llm.FunctionCallOutput(call_id=call["call_id"], name="dice", output="4", is_error=False)
    context.items.append(output)
    await talk.session.update_chat_ctx(context)
    await talk.session.generate_reply()
    same(await talk.answer(), "The tool answered: 4")


async def interruption(talk: Talk) -> None:
    await talk.write(LONG)
    await talk.session.generate_reply()
    begun = await talk.until("response.output_audio.delta")
    talk.session.interrupt()
    same((await talk.until("response.done"))["response"]["status"], "cancelled")
    talk.session.truncate(message_id=begun["item_id"], modalities=["audio"], audio_end_ms=50)
    same((await talk.until("conversation.item.truncated"))["audio_end_ms"], 50)


async def error(talk: Talk) -> None:
    talk.session.send_event({"type": "response.cancel", "event_id": "mine"})
    same((await talk.until("error"))["error"]["event_id"], "mine")
    await talk.write(GREETING)
    await talk.session.generate_reply()
    same(await talk.answer(), f"You said: {GREETING}")


async def dispatched(talk: Talk) -> None:
    seen: list[dict[str, Any]] = []

    async def hear(words: str) -> None:
        while not (seen and seen[-1]["type"] == "response.done" and words in str(seen[-1])):
            seen.append(await talk.event())

    await talk.write("call lookup")
    await talk.session.generate_reply()
    await hear("The tool answered")
    await talk.write(GREETING)
    await talk.session.generate_reply()
    await hear(f"You said: {GREETING}")
    unseen(seen)
    same([item.type for item in talk.session.chat_ctx.items if item.type != "message"], [])


def model(http: aiohttp.ClientSession) -> openai.realtime.RealtimeModel:
    names: dict[str, Any] = {"http": http}
    exec(SNIPPET, names)  # noqa: S102
    return names["model"]


@asynccontextmanager
async def talking(model: openai.realtime.RealtimeModel) -> AsyncIterator[Talk]:
    session = model.session()
    talk = Talk(session)
    try:
        await talk.until("session.updated")
        yield talk
    finally:
        await session.aclose()


async def run(turn: Callable[[Talk], Awaitable[None]], made: openai.realtime.RealtimeModel) -> None:
    async with talking(made) as talk:
        await turn(talk)


async def main() -> None:
    async with aiohttp.ClientSession() as http:
        made = model(http)
        turns = (text, audio, heard_audio, image, tool, interruption, error)
        for turn in (dispatched,) if DISPATCHED else turns:
            await attempt(turn.__name__.replace("_", " "), run(turn, made))
        await made.aclose()


asyncio.run(main())
