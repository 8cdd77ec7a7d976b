"""The simulated model in process, over memory connections."""

import trio

from rtpipe.sim import DEFAULT_MODEL, SimOptions, run_session
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.memory import MemoryConnection, memory_pair


def sim_upstream(
    nursery: trio.Nursery, options: SimOptions | None = None, model: str = DEFAULT_MODEL
) -> Connection:
    """A connection to a simulated model of its own, which lives in *nursery*.

    Speaks without waiting unless *options* say otherwise.
    """
    ours, theirs = memory_pair(256)
    nursery.start_soon(_serve, theirs, options or SimOptions(pace=0, seed=1), model)
    return ours


async def _serve(connection: MemoryConnection, options: SimOptions, model: str) -> None:
    async def receive() -> str | None:
        try:
            return (await connection.receive()).decode()
        except ConnectionLost:
            return None

    async def send(text: str) -> None:
        try:
            await connection.send(text.encode())
        except ConnectionLost:
            raise trio.BrokenResourceError from None

    await run_session(receive, send, options, model=model)
    await connection.close(1000, "")
