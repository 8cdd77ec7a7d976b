"""A plain relay on aiohttp, as one writes it in an afternoon: two tasks a session, nothing looked at.

Runs in an environment of its own: aiohttp_relay.py PORT UPSTREAM_URL
"""

import asyncio
import sys

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

LIMIT = 16 * 2**20
session_key: web.AppKey[ClientSession] = web.AppKey("session")


async def pump(source, sink) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)


async def relay(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(max_msg_size=LIMIT, compress=False)
    upstream: ClientWebSocketResponse
    async with request.app[session_key].ws_connect(URL, max_msg_size=LIMIT) as upstream:
        await client.prepare(request)
        pumps = [asyncio.create_task(pump(upstream, client)), asyncio.create_task(pump(client, upstream))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task in pumps:
            task.cancel()
        await client.close()
    return client


async def with_session(app: web.Application):
    from aiohttp import TCPConnector

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        app[session_key] = session
        yield


if __name__ == "__main__":
    URL = sys.argv[2]
    app = web.Application()
    app.cleanup_ctx.append(with_session)
    app.router.add_get("/v1/realtime", relay)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
