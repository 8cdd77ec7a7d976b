"""OpenAI's own Python client, unmodified, through a daemon process: it sees what it would see without one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from openai import AsyncAzureOpenAI, AsyncOpenAI, Omit

from tests.daemon.kit import KEY, MODEL, running, simulated
from tests.daemon.wire import WAIT_S
from tests.sim.kit import png, silence, tone, tool

pytest.importorskip("websockets", reason="the client's realtime part is openai[realtime]")

Conversation = Callable[[Any, list[Any]], Awaitable[None]]


async def until(connection: Any, seen: list[Any], kind: str) -> Any:
    while True:
        seen.append(await connection.recv())
        if seen[-1].type == kind:
            return seen[-1]


def said(done: Any) -> str:
    content = done.response.output[0].content[0]
    return content.text or content.transcript


async def write(connection: Any, *content: dict[str, Any]) -> None:
    item = {"type": "message", "role": "user", "content": list(content)}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


def text(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


async def speak(connection: Any, pcm: bytes) -> None:
    for at in range(0, len(pcm), 4800):
        chunk = base64.b64encode(pcm[at : at + 4800]).decode()
        await connection.input_audio_buffer.append(audio=chunk)


async def text_turn(connection: Any, seen: list[Any]) -> None:
    await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
    await until(connection, seen, "session.updated")
    await write(connection, text("Good day — ünïcode 🎉"))
    assert said(await until(connection, seen, "response.done")) == "You said: Good day — ünïcode 🎉"


async def committed_audio(connection: Any, seen: list[Any]) -> None:
    manual = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    await connection.session.update(session=manual)
    await speak(connection, tone(500))
    await connection.input_audio_buffer.commit()
    await connection.response.create()
    assert said(await until(connection, seen, "response.done")) == "I heard 0.5 seconds of audio."
    assert any(event.type == "response.output_audio.delta" for event in seen)


async def heard_audio(connection: Any, seen: list[Any]) -> None:
    await speak(connection, silence(400) + tone(600) + silence(600))
    assert said(await until(connection, seen, "response.done")).startswith("I heard ")
    assert any(event.type == "input_audio_buffer.speech_stopped" for event in seen)


async def image(connection: Any, seen: list[Any]) -> None:
    await write(connection, {"type": "input_image", "image_url": png(640, 480)})
    assert said(await until(connection, seen, "response.done")) == "I see a PNG image, 640 x 480."


async def tool_turn(connection: Any, seen: list[Any]) -> None:
    await connection.session.update(session={"type": "realtime", "tools": [tool("dice")]})
    await write(connection, text('call dice {"sides": 6}'))
    (call,) = (await until(connection, seen, "response.done")).response.output
    assert (call.name, call.arguments) == ("dice", '{"sides": 6}')
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
    await connection.conversation.item.create(item=output)
    await connection.response.create()
    assert said(await until(connection, seen, "response.done")) == "The tool answered: 4"


async def errors(connection: Any, seen: list[Any]) -> None:
    await connection.send({"type": "response.cancel", "event_id": "mine"})
    first = await until(connection, seen, "error")
    assert (first.error.code, first.error.event_id) == ("response_cancel_not_active", "mine")
    await connection.send({"type": "no.such.event", "event_id": "other"})
    assert (await until(connection, seen, "error")).error.event_id == "other"
    await text_turn(connection, seen)


async def converse(openai: Any, conversation: Conversation, **options: Any) -> list[str]:
    """The types of the events in one conversation, in order."""
    seen: list[Any] = []
    async with openai, openai.realtime.connect(model=MODEL, **options) as connection:
        await asyncio.wait_for(until(connection, seen, "session.created"), WAIT_S)
        await asyncio.wait_for(conversation(connection, seen), WAIT_S)
    return [event.type for event in seen]


async def on_asyncio(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: asyncio.run(function(*args)))  # type: ignore[arg-type]


def plain(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=KEY, base_url=url.replace("ws://", "http://").removesuffix("/realtime"))


@pytest.mark.parametrize("conversation", [text_turn, committed_audio, heard_audio, image, tool_turn, errors])
@pytest.mark.parametrize("chain", [["auth"], ["auth", "response-lock"]], ids=len)
async def test_it_sees_what_it_would_see_without(file, conversation, chain):
    async with simulated() as model, running(file(model, chain=chain)) as gateway:
        direct = await on_asyncio(converse, plain(model), conversation)
        host, port = gateway.address
        through = await on_asyncio(converse, plain(f"ws://{host}:{port}/v1/realtime"), conversation)
        assert through == direct


async def api_key_header(place: str) -> list[str]:
    openai = AsyncOpenAI(api_key="not used", base_url=f"http://{place}/v1")
    headers = {"api-key": KEY, "Authorization": Omit()}
    return await converse(openai, text_turn, extra_headers=headers)


async def azure(place: str) -> list[str]:
    openai = AsyncAzureOpenAI(
        api_key=KEY,
        api_version="2025-04-01-preview",
        azure_endpoint=f"http://{place}",
        websocket_base_url=f"ws://{place}/openai",
    )
    return await converse(openai, text_turn)


async def wrong_key(place: str) -> tuple[int, str]:
    from websockets.exceptions import InvalidStatus

    openai = AsyncOpenAI(api_key="sk-wrong", base_url=f"http://{place}/v1")
    try:
        async with openai, openai.realtime.connect(model=MODEL):
            raise AssertionError("it was let in")
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.body.decode()  # type: ignore[union-attr]


async def test_other_ways_to_bring_a_key(file):
    async with running(file(), "--sim", "--sim-pace", "0") as gateway:
        place = "{}:{}".format(*gateway.address)
        assert "response.done" in await on_asyncio(api_key_header, place)
        assert "response.done" in await on_asyncio(azure, place)
        status, body = await on_asyncio(wrong_key, place)
        assert status == 401
        assert "invalid_api_key" in body
