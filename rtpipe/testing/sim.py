"""The simulated model in process, over memory connections."""

import trio

from rtpipe.sim import DEFAULT_MODEL, FaultError, Served, SimOptions
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.memory import MemoryConnection, memory_pair


def sim_upstream(
    nursery: trio.Nursery, options: SimOptions | None = None, model: str = DEFAULT_MODEL
) -> Connection:
    """A connection to a simulated model of its own, which lives in *nursery*.

    Speaks without waiting unless *options* say otherwise. Its faults are those of a socket, but for the two
    kinds of garbage that are no text.
    """
    ours, theirs = memory_pair(256)
    line = _MemoryLine(theirs)
    nursery.start_soon(_serve, line, options or SimOptions(pace=0, seed=1), model)
    return ours


async def _serve(line: "_MemoryLine", options: SimOptions, model: str) -> None:
    await Served(line, options).run(model=model)


class _MemoryLine:
    """What a session of the simulated model talks through."""

    def __init__(self, connection: MemoryConnection) -> None:
        self._connection = connection
        self._stalled = False
        self._bytes_per_second: float | None = None

    async def receive(self) -> str | None:
        await self._if_stalled()
        try:
            text = (await self._connection.receive()).decode()
        except ConnectionLost:
            return None
        await self._if_stalled()
        return text

    async def send(self, text: str) -> None:
        await self._if_stalled()
        payload = text.encode()
        if self._bytes_per_second is not None:
            await trio.sleep(len(payload) / self._bytes_per_second)
        try:
            await self._connection.send(payload)
        except ConnectionLost:
            raise trio.BrokenResourceError from None

    async def send_frame(self, _frame: bytes, /) -> None:
        raise FaultError("a connection in memory has no frames: this garbage needs a socket")

    async def close(self, code: int, reason: str) -> None:
        if not self._stalled:
            await self._connection.close(code, reason)

    async def drop(self, *, reset: bool) -> None:
        self._connection.abort("connection reset" if reset else "connection lost")
        await trio.lowlevel.checkpoint()

    def stall(self) -> None:
        self._stalled = True

    def slow(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second

    async def _if_stalled(self) -> None:
        if self._stalled:
            # The point of a stall. It ends with the session, whose time is limited, or with the nursery.
            await trio.sleep_forever()
