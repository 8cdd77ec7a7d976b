"""Calls that are cut somewhere: by openai-python, which resumes as its snippet says, or by a plain
WebSocket that counts its events itself."""

import asyncio
import json
import secrets
from contextlib import suppress
from textwrap import indent
from typing import Any

import websockets
from caller import Caller, Event, appending, through
from openai import WebSocketQueueFullError
from turns import MATERIAL, SNIPPET, attempt

PLAIN = MATERIAL["client"] == "plain"
LASTS_S = float(MATERIAL.get("lasts_s", 0))
"""How long a call goes on that nobody cuts."""
AT_ONCE = 12
PINGS = {"ping_interval": 2, "ping_timeout": 4, "close_timeout": 1}
"""Seconds; by default a dead connection is noticed after 40."""
_MODEL = "gpt-realtime-2.1"


async def sdk(name: str) -> None:
    """One call by openai-python."""
    options = f"on_reconnecting=resume, initial_delay=0.1, websocket_connection_options={PINGS}"
    body = SNIPPET.replace("on_reconnecting=resume", options).replace(_MODEL, f"{_MODEL}-{name}")
    names: dict[str, Any] = {}
    body = indent(body.replace("...", "await hear(connection, event)"), "    ")
    exec(f"async def program(hear):\n{body}", names)  # noqa: S102
    lines: list[Any] = []

    async def send(event: Event) -> None:
        with suppress(
            websockets.ConnectionClosed, WebSocketQueueFullError
        ):  # it is said again when it is back
            await lines[0].send(event)

    caller = Caller(send, appending(send), counts=True)

    async def hear(connection: Any, event: Any) -> None:
        lines[:] = [connection]
        await caller.hear(event.to_dict())

    async def call() -> None:
        await (caller.last(LASTS_S) if LASTS_S else caller.call())
        await lines[0].close()

    async def listen() -> None:
        while True:
            try:
                await names["program"](hear)
                return
            except websockets.InvalidStatus:  # the session has not begun: 502
                await asyncio.sleep(0.1)

    await through(listen(), call())


async def plain(name: str) -> None:
    """One call by a client that connects again with the id of the last event it has."""
    key, last = secrets.token_urlsafe(), ""
    sockets: list[Any] = []

    async def send(event: Event) -> None:
        with suppress(websockets.ConnectionClosed):
            await sockets[-1].send(json.dumps(event))

    caller = Caller(send, appending(send), counts=True)

    async def listen() -> None:
        nonlocal last
        while True:
            query = f"model={_MODEL}-{name}&rtpipe_session={key}" + (f"&rtpipe_after={last}" if last else "")
            headers = {"Authorization": f"Bearer {MATERIAL['key']}"}
            url = f"ws://{MATERIAL['address']}/v1/realtime?{query}"
            with suppress(websockets.ConnectionClosed, websockets.InvalidStatus):
                async with websockets.connect(
                    url, additional_headers=headers, max_size=None, compression=None, **PINGS
                ) as socket:
                    sockets.append(socket)
                    async for text in socket:
                        event = json.loads(text)
                        last = event["event_id"]
                        await caller.hear(event)

    async def call() -> None:
        await caller.call()
        await sockets[-1].close()

    await through(listen(), call())


async def main() -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with turns:
            await attempt(name, plain(name) if PLAIN else sdk(name))

    await asyncio.gather(*map(one, MATERIAL["calls"]))


asyncio.run(main())
