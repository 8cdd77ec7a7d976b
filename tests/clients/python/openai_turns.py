"""Runs behind the snippets for openai-python: one session for each turn."""

import asyncio
from base64 import b64encode
from typing import Any

from turns import AUDIO, GREETING, LONG, MATERIAL, SNIPPET, SPEECH, attempt, chunks, program, same

BETA = ".beta." in SNIPPET
"""The beta module: the same turns, under the retired names."""
TEXT = {"modalities": ["text"]} if BETA else {"type": "realtime", "output_modalities": ["text"]}
MANUAL = {"turn_detection": None}
if not BETA:
    MANUAL = {"type": "realtime", "audio": {"input": MANUAL}}
SOUND = "response.audio.delta" if BETA else "response.output_audio.delta"
DICE = {
    "type": "function",
    "name": "dice",
    "description": "Rolls.",
    "parameters": {"type": "object", "properties": {}},
}


async def until(connection: Any, kind: str) -> list[Any]:
    seen = [await connection.recv()]
    while seen[-1].type != kind:
        if seen[-1].type == "error":
            raise AssertionError(f"{seen[-1].error} before {kind}")
        seen.append(await connection.recv())
    return seen


async def answer(connection: Any) -> str:
    done = (await until(connection, "response.done"))[-1]
    content = done.response.output[0].content[0]
    return content.text or content.transcript


async def write(connection: Any, *content: dict[str, Any]) -> None:
    item = {"type": "message", "role": "user", "content": list(content)}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


async def say(connection: Any, text: str) -> None:
    await write(connection, {"type": "input_text", "text": text})


async def update(connection: Any, session: dict[str, Any]) -> None:
    await connection.session.update(session=session)
    await until(connection, "session.updated")


async def speak(connection: Any, pcm: bytes) -> None:
    for chunk in chunks(pcm):
        await connection.input_audio_buffer.append(audio=b64encode(chunk).decode())


async def text(connection: Any) -> None:
    await update(connection, TEXT)
    await say(connection, GREETING)
    same(await answer(connection), f"You said: {GREETING}")


async def audio(connection: Any) -> None:
    await update(connection, MANUAL)
    await speak(connection, AUDIO)
    await connection.input_audio_buffer.commit()
    await connection.response.create()
    same(await answer(connection), "I heard 0.5 seconds of audio.")


async def heard_audio(connection: Any) -> None:
    await until(connection, "session.created")
    await speak(connection, SPEECH)
    await until(connection, "input_audio_buffer.speech_stopped")
    same((await answer(connection))[:8], "I heard ")


async def image(connection: Any) -> None:
    await write(connection, {"type": "input_image", "image_url": MATERIAL["image"]})
    same(await answer(connection), "I see a PNG image, 640 x 480.")


async def tool(connection: Any) -> None:
    await update(connection, {"tools": [DICE]} if BETA else {"type": "realtime", "tools": [DICE]})
    await say(connection, 'call dice {"sides": 6}')
    (call,) = (await until(connection, "response.done"))[-1].response.output
    same((call.name, call.arguments), ("dice", '{"sides": 6}'))
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
    await connection.conversation.item.create(item=output)
    await connection.response.create()
    same(await answer(connection), "The tool answered: 4")


async def interruption(connection: Any) -> None:
    await say(connection, LONG)
    begun = (await until(connection, SOUND))[-1]
    await connection.response.cancel()
    done = (await until(connection, "response.done"))[-1]
    same((done.response.status, done.response.status_details.reason), ("cancelled", "client_cancelled"))
    await connection.conversation.item.truncate(item_id=begun.item_id, content_index=0, audio_end_ms=50)
    same((await until(connection, "conversation.item.truncated"))[-1].audio_end_ms, 50)


async def error(connection: Any) -> None:
    await until(connection, "session.created")
    await connection.send({"type": "response.cancel", "event_id": "mine"})
    first = await connection.recv()
    same((first.error.code, first.error.event_id), ("response_cancel_not_active", "mine"))
    await connection.send({"type": "no.such.event", "event_id": "other"})
    same((await connection.recv()).error.event_id, "other")
    await say(connection, GREETING)
    same(await answer(connection), f"You said: {GREETING}")


async def crossing(connection: Any) -> None:
    await say(connection, GREETING)
    await connection.response.create()
    done = {"response.done": 0, "error": 0}
    while sum(done.values()) < 2:  # the model refuses the second; response-lock has it wait
        event = await connection.recv()
        if event.type in done:
            done[event.type] += 1
    same(done["response.done"] > 0, True)


async def main() -> None:
    with_connection = program()
    for turn in (text, audio, heard_audio, image, tool, interruption, error, crossing):
        await attempt(turn.__name__.replace("_", " "), with_connection(turn))


asyncio.run(main())
