"""Two connections joined in memory: for tests of everything above the transport, and for the test kit."""

from collections.abc import Sequence
from contextlib import suppress

import trio

from rtpipe.transport.connection import (
    ABNORMAL,
    WRITE_DEADLINE_S,
    Closing,
    ConnectionLost,
    Peer,
    wire_reason,
)


class MemoryConnection:
    """One end of a pair; a Connection. It behaves as a socket does: see `rtpipe.transport.connection`."""

    def __init__(
        self,
        peer: Peer,
        outgoing: trio.MemorySendChannel[bytes],
        incoming: trio.MemoryReceiveChannel[bytes],
        write_deadline_s: float,
    ) -> None:
        self.peer = peer
        self._outgoing = outgoing
        self._incoming = incoming
        self._write_deadline_s = write_deadline_s
        self._closing: Closing | None = None
        self._other: MemoryConnection

    async def receive(self) -> bytes:
        try:
            return await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._lost() from None

    async def receive_many(self) -> list[bytes]:
        payloads = [await self.receive()]
        with suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                payloads.append(self._incoming.receive_nowait())
        return payloads

    async def send_many(self, payloads: Sequence[bytes]) -> None:
        for count, payload in enumerate(payloads):
            try:
                await self.send(payload)
            except ConnectionLost as loss:
                loss.taken = count
                raise

    def unacknowledged(self) -> int:
        """Nothing is on its way that has not arrived."""
        return 0

    async def send(self, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        try:
            with suppress(trio.WouldBlock):
                self._outgoing.send_nowait(payload)
                return
            await self._send_to_slow_reader(payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None

    async def close(self, code: int, reason: str) -> None:
        self._end(Closing(code, wire_reason(code, reason), clean=True))
        await trio.lowlevel.cancel_shielded_checkpoint()

    def abort(self, reason: str = "connection lost") -> None:
        """Cut the wire: both ends find 1006, the other one after what had already arrived."""
        self._end(Closing(ABNORMAL, reason, clean=False))

    async def _send_to_slow_reader(self, payload: bytes) -> None:
        try:
            with trio.fail_after(self._write_deadline_s):
                await self._outgoing.send(payload)
        except trio.TooSlowError:
            self.abort(f"nothing read within the write deadline of {self._write_deadline_s:g} s")
            raise self._lost() from None
        except trio.Cancelled:
            # On a socket, half a frame would stand on the wire now.
            self.abort("a send was cancelled in mid frame")
            raise

    def _end(self, closing: Closing) -> None:
        for end in (self, self._other):
            end._closing = end._closing or closing
        self._outgoing.close()
        self._incoming.close()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(self._closing or Closing(ABNORMAL, "connection lost", clean=False))


def memory_pair(
    limit: int = 16, *, write_deadline_s: float = WRITE_DEADLINE_S
) -> tuple[MemoryConnection, MemoryConnection]:
    """Two connected ends. `limit` payloads wait in each direction; then send() waits for the reader."""
    there, here = trio.open_memory_channel[bytes](limit), trio.open_memory_channel[bytes](limit)
    peer = Peer("memory")
    left = MemoryConnection(peer, there[0], here[1], write_deadline_s)
    right = MemoryConnection(peer, here[0], there[1], write_deadline_s)
    left._other, right._other = right, left
    return left, right
