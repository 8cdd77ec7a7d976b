"""Runs behind the snippet for openai-agents: one session for each turn."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeSession
from agents.realtime.model_inputs import RealtimeModelSendRawMessage, RealtimeModelSendSessionUpdate
from turns import AUDIO, DISPATCHED, GREETING, LONG, MATERIAL, SPEECH, attempt, chunks, program, same, unseen


@function_tool
def dice(sides: int) -> str:
    """Rolls."""
    return f"{sides - 2}"


async def until(session: RealtimeSession, kind: str, times: int = 1) -> dict[str, Any]:
    """The next server event of a type, as it came. The runner reads them too, and answers some."""
    async for event in session:
        if event.type != "raw_model_event" or event.data.type != "raw_server_event":
            continue
        found = event.data.data
        if found["type"] == "error" and kind != "error":
            raise AssertionError(f"{found['error']} before {kind}")
        times -= found["type"] == kind
        if not times:
            return found
    raise AssertionError(f"the end before {kind}")


async def answer(session: RealtimeSession) -> str:
    content = (await until(session, "response.done"))["response"]["output"][0]["content"][0]
    return content.get("text") or content.get("transcript")


async def update(session: RealtimeSession, **settings: Any) -> None:
    await session.model.send_event(RealtimeModelSendSessionUpdate(session_settings=settings))
    await until(session, "session.updated")


async def text(session: RealtimeSession) -> None:
    await update(session, output_modalities=["text"])
    await session.send_message(GREETING)
    same(await answer(session), f"You said: {GREETING}")


async def audio(session: RealtimeSession) -> None:
    await update(session, turn_detection=None)
    for chunk in chunks(AUDIO):
        await session.send_audio(chunk)
    await session.send_audio(b"", commit=True)
    await session.model.send_event(RealtimeModelSendRawMessage(message={"type": "response.create"}))
    same(await answer(session), "I heard 0.5 seconds of audio.")


async def heard_audio(session: RealtimeSession) -> None:
    for chunk in chunks(SPEECH):
        await session.send_audio(chunk)
    await until(session, "input_audio_buffer.speech_stopped")
    same((await answer(session))[:8], "I heard ")


async def image(session: RealtimeSession) -> None:
    content = [{"type": "input_image", "image_url": MATERIAL["image"]}]
    await session.send_message({"type": "message", "role": "user", "content": content})
    same(await answer(session), "I see a PNG image, 640 x 480.")


async def tool(session: RealtimeSession) -> None:
    await session.send_message('call dice {"sides": 6}')
    same((await until(session, "response.done"))["response"]["output"][0]["name"], "dice")
    same(await answer(session), "The tool answered: 4")


async def interruption(session: RealtimeSession) -> None:
    await update(session, turn_detection=None)  # with a detector it leaves cancelling to the model
    await session.send_message(LONG)
    await until(session, "response.output_audio.delta", times=3)
    await session.interrupt()
    done = await until(session, "response.done")
    same(done["response"]["status"], "cancelled")
    await until(session, "conversation.item.retrieved")  # it asks what is left of the item


async def error(session: RealtimeSession) -> None:
    await session.model.send_event(RealtimeModelSendRawMessage(message={"type": "response.cancel"}))
    same((await until(session, "error"))["error"]["code"], "response_cancel_not_active")
    await session.send_message(GREETING)
    same(await answer(session), f"You said: {GREETING}")


async def dispatched(session: RealtimeSession) -> None:
    seen: list[dict[str, Any]] = []

    async def hear(words: str) -> None:
        async for event in session:
            if event.type == "raw_model_event" and event.data.type == "raw_server_event":
                seen.append(event.data.data)
                if seen[-1]["type"] == "response.done" and words in str(seen[-1]):
                    return

    await session.send_message("call lookup")
    await hear("The tool answered")
    await session.send_message(GREETING)
    await hear(f"You said: {GREETING}")
    unseen(seen)


async def main() -> None:
    run = program()
    agent = RealtimeAgent(name="Assistant", instructions="Answer.", tools=[] if DISPATCHED else [dice])
    turns = (text, audio, heard_audio, image, tool, interruption, error)
    for turn in (dispatched,) if DISPATCHED else turns:
        await attempt(turn.__name__.replace("_", " "), run(partial(ready, turn), agent=agent))


async def ready(turn: Callable[[RealtimeSession], Awaitable[None]], session: RealtimeSession) -> None:
    await until(session, "session.updated", times=2)  # its own, and the one that turns tracing on
    await turn(session)


asyncio.run(main())
