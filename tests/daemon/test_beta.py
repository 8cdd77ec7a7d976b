"""Clients of the retired beta, openai-python's own among them, through a daemon: they see what they knew."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.beta.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from tests.daemon.kit import CREATED, KEY, MODEL, bearer, client, in_process, running, scripted, simulated
from tests.daemon.test_openai_python import on_asyncio, said, speak, text, write
from tests.daemon.wire import WAIT_S
from tests.sim.kit import silence, tone, tool

pytest.importorskip("websockets", reason="the client's realtime part is openai[realtime]")

BETA = TypeAdapter(RealtimeServerEvent)
HEADER = [*bearer(), ("OpenAI-Beta", "realtime=v1")]
SUBPROTOCOLS = f"realtime, openai-insecure-api-key.{KEY}, openai-beta.realtime-v1"


async def until(connection: Any, seen: list[Any], kind: str) -> Any:
    """The next event of this type; every one on the way is one that the beta's own types allow."""
    while True:
        payload = await connection.recv_bytes()
        raw = msgspec.json.decode(payload)
        if "session" in raw:
            raw["session"]["model"] = "gpt-realtime"  # the beta's types know no newer one
        BETA.validate_python(raw)
        seen.append(connection.parse_event(payload))
        if seen[-1].type == kind:
            return seen[-1]


async def text_turn(connection: Any, seen: list[Any]) -> None:
    session = {"modalities": ["text"], "instructions": "Be brief.", "temperature": 0.8}
    await connection.session.update(session={**session, "max_response_output_tokens": 100})
    updated = (await until(connection, seen, "session.updated")).session
    assert (updated.modalities, updated.instructions) == (["text"], "Be brief.")
    assert updated.max_response_output_tokens == 100
    await write(connection, text("Good day"))
    done = await until(connection, seen, "response.done")
    assert said(done) == "You said: Good day"
    assert done.response.output[0].content[0].type == "text"
    assert "".join(event.delta for event in seen if event.type == "response.text.delta") == said(done)
    created = [event.item.role for event in seen if event.type == "conversation.item.created"]
    assert created == ["user", "assistant"]
    output = done.response.output[0]
    again = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "And you?"}]}
    await connection.conversation.item.create(item=again, previous_item_id=output.id)
    item = (await until(connection, seen, "conversation.item.created")).item
    assert item.content[0].type == "text"


async def audio_turn(connection: Any, seen: list[Any]) -> None:
    detector = {"type": "server_vad", "silence_duration_ms": 300}
    await connection.session.update(
        session={"voice": "verse", "turn_detection": detector, "output_audio_format": "pcm16"}
    )
    updated = (await until(connection, seen, "session.updated")).session
    assert (updated.voice, updated.output_audio_format) == ("verse", "pcm16")
    assert updated.turn_detection.silence_duration_ms == 300
    await speak(connection, silence(400) + tone(600) + silence(600))
    done = await until(connection, seen, "response.done")
    assert done.response.output[0].content[0].type == "audio"
    deltas = [base64.b64decode(event.delta) for event in seen if event.type == "response.audio.delta"]
    assert sum(map(len, deltas)) > 1000
    spoken = "".join(event.delta for event in seen if event.type == "response.audio_transcript.delta")
    assert spoken == said(done)


async def tool_turn(connection: Any, seen: list[Any]) -> None:
    await connection.session.update(session={"modalities": ["text"], "tools": [tool("dice")]})
    await write(connection, text('call dice {"sides": 6}'))
    (call,) = (await until(connection, seen, "response.done")).response.output
    assert (call.name, call.arguments) == ("dice", '{"sides": 6}')
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
    await connection.conversation.item.create(item=output)
    await connection.response.create(response={"modalities": ["text"], "max_response_output_tokens": "inf"})
    assert said(await until(connection, seen, "response.done")) == "The tool answered: 4"


async def errors(connection: Any, seen: list[Any]) -> None:
    await connection.send({"type": "response.cancel", "event_id": "mine"})
    first = await until(connection, seen, "error")
    assert (first.error.code, first.error.event_id) == ("response_cancel_not_active", "mine")
    wrong = {"input_audio_format": "pcm17"}
    await connection.send({"type": "session.update", "event_id": "wrong", "session": wrong})
    second = await until(connection, seen, "error")
    assert second.error.event_id == "wrong"
    assert second.error.param == "session.input_audio_format"
    await text_turn(connection, seen)


async def converse(place: str, conversation: Any) -> list[str]:
    seen: list[Any] = []
    openai = AsyncOpenAI(api_key=KEY, websocket_base_url=f"ws://{place}/v1")
    async with openai, openai.beta.realtime.connect(model=MODEL) as connection:
        await asyncio.wait_for(until(connection, seen, "session.created"), WAIT_S)
        await asyncio.wait_for(conversation(connection, seen), WAIT_S)
    return [event.type for event in seen]


@pytest.mark.parametrize("conversation", [text_turn, audio_turn, tool_turn, errors])
@pytest.mark.parametrize("chain", [["auth"], ["auth", "response-lock"]], ids=len)
async def test_the_beta_module_of_openai_python(file, conversation, chain):
    async with simulated() as model, running(file(model, chain=chain)) as gateway:
        seen = await on_asyncio(converse, "{}:{}".format(*gateway.address), conversation)
    assert not [kind for kind in seen if "output_" in kind and "output_item" not in kind]


@pytest.mark.parametrize(
    "headers", [HEADER, [("Sec-WebSocket-Protocol", SUBPROTOCOLS)]], ids=["header", "page"]
)
async def test_the_upstream_and_the_chain_meet_ga_only(text, headers):
    session = {"type": "realtime", "audio": {"output": {"voice": "v"}}}
    greeting = msgspec.json.encode({"type": "session.created", "event_id": "e", "session": session})
    async with (
        scripted(greeting) as model,
        in_process(text(model.url)) as gateway,
        client(gateway.address, "/v1/realtime?deployment=theirs", headers) as app,
    ):
        upstream = await model.next()
        assert upstream.head.target == "/v1/realtime?model=theirs"
        assert "beta" not in str(upstream.head.pairs)
        assert app.head.headers.get("sec-websocket-protocol", "realtime") == "realtime"
        created = await app.event()
        assert created == {"type": "session.created", "event_id": "e", "session": {"voice": "v"}}
        await app.tell("session.update", session={"voice": "w", "temperature": 1})
        assert (await upstream.event())["session"] == {
            "type": "realtime",
            "audio": {"output": {"voice": "w"}},
        }
        append = b'{"type":"input_audio_buffer.append",  "audio":"AAAA"}'
        await app.send(append)
        assert await upstream.receive() == append
        await upstream.tell("conversation.item.done", item={})
        await upstream.tell("response.output_audio.delta", delta="AAAA")
        assert await app.receive() == b'{"type":"response.audio.delta","delta":"AAAA"}'
        await app.send(b'{"type":"session.update","session":{"voice":1,"voice":2}}')
        assert (await app.event())["error"]["code"] == "duplicate_key"
        await upstream.close(4001, "bye")
        _, end = await app.ended()
        assert (end.code, end.reason) == (4001, "bye")


async def test_an_address_of_azures_preview_alone_is_no_beta_client(text):
    target = "/openai/realtime?api-version=2025-04-01-preview&deployment=theirs"
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        client(gateway.address, target, [("api-key", KEY)]) as app,
    ):
        assert (await model.next()).head.target == "/v1/realtime?model=theirs"
        assert await app.receive() == CREATED
