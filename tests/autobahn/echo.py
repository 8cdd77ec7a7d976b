"""Our two sides of a WebSocket, as the Autobahn test suite wants them: they say back what they are told."""

from functools import partial

import trio

from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.dialer import dial
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.listening import open_tcp
from rtpipe.transport.server import serve

AGENT = "rtpipe"


async def _echo(connection: Connection) -> None:
    try:
        while True:
            await connection.send_many(await connection.receive_many())
    except ConnectionLost:
        await connection.close(1000, "")  # which waits until it has ended


async def start_server(nursery: trio.Nursery) -> str:
    """Serve in `nursery`. Returns the URL."""

    async def handler(exchange: Exchange) -> None:
        await _echo(await exchange.accept())

    listeners = await open_tcp("autobahn", "127.0.0.1", 0)
    nursery.start_soon(partial(serve, listeners, handler))
    return listeners[0].url


async def run_client(url: str) -> None:
    """Go through the cases of a fuzzing server, one connection each, and have it write its report."""
    for number in range(1, await _case_count(url) + 1):
        await _echo(await dial(f"{url}/runCase?case={number}&agent={AGENT}"))
    await _echo(await dial(f"{url}/updateReports?agent={AGENT}"))


async def _case_count(url: str) -> int:
    connection = await dial(f"{url}/getCaseCount")
    count = int(await connection.receive())
    await connection.close(1000, "")
    return count
