"""OpenAI's own Python client, unmodified and on asyncio, against a handler of this transport."""

import asyncio
import importlib.util
import json

import pytest
import trio

from rtpipe.transport.connection import ConnectionLost
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.http import Request, RequestRefused
from rtpipe.transport.listening import open_tcp
from rtpipe.transport.server import serve

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("websockets") is None, reason="needs openai[realtime], which brings websockets"
)


async def use_the_client(port: int) -> list[object]:
    import openai
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    client = openai.AsyncOpenAI(api_key="sk-test", base_url=f"http://127.0.0.1:{port}/v1")
    seen: list[object] = []
    async with client, client.realtime.connect(model="gpt-realtime") as connection:
        await connection.send({"type": "input_audio_buffer.append", "audio": "A" * 15 * 2**20})
        event = await connection.recv()
        seen.append((event.type, len(event.model_extra["audio"])))  # type: ignore[index]
        await connection.send({"type": "response.cancel"})
        await connection.recv()
        try:
            await connection.recv()
        except ConnectionClosed as closed:
            seen.append((closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else closed)
    try:
        async with client.realtime.connect(model="unknown"):
            pass
    except InvalidStatus as refused:
        seen.append((refused.response.status_code, json.loads(refused.response.body or b"")["error"]["code"]))
    return seen


async def test_connect_talk_close_and_be_refused(nursery: trio.Nursery) -> None:
    requests: list[Request] = []

    async def echo(exchange: Exchange) -> None:
        requests.append(exchange.request)
        if exchange.request.param("model") == "unknown":
            raise RequestRefused(404, "model_not_found", "There is no such model.")
        connection = await exchange.accept()
        try:
            for _ in range(2):
                await connection.send(await connection.receive())
            await connection.close(4000, "enough")
        except ConnectionLost:
            pass

    listeners = await open_tcp("main", "127.0.0.1", 0)
    nursery.start_soon(serve, listeners, echo)
    port = listeners[0].address[1]
    with trio.fail_after(20):
        seen = await trio.to_thread.run_sync(
            lambda: asyncio.run(use_the_client(port)), abandon_on_cancel=True
        )
    assert seen == [
        ("input_audio_buffer.append", 15 * 2**20),
        (4000, "enough"),
        (404, "model_not_found"),
    ]
    assert requests[0].path == "/v1/realtime"
    assert requests[0].headers.get("authorization") == "Bearer sk-test"
