"""Clients of the retired beta dialect: translated at their connection, so that nothing behind it knows."""

from collections.abc import Sequence

import trio

from rtpipe.protocol import beta
from rtpipe.transport.connection import Connection, ConnectionLost, Peer
from rtpipe.transport.http import Request


def asks_for_beta(request: Request) -> bool:
    """Whether the handshake asks for the beta by its header or its subprotocol. An address of Azure's preview
    alone does not: current SDKs use it too."""
    return beta.SUBPROTOCOL in request.subprotocols or beta.HEADER_VALUE in request.headers.tokens(
        beta.HEADER
    )


class BetaConnection:
    """A client's connection whose payloads are GA on our side and beta on the client's; a Connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def peer(self) -> Peer:
        return self._connection.peer

    async def receive_many(self) -> list[bytes]:
        return [beta.to_ga(payload) for payload in await self._connection.receive_many()]

    async def receive(self) -> bytes:
        return beta.to_ga(await self._connection.receive())

    async def send_many(self, payloads: Sequence[bytes]) -> None:
        translated = [beta.from_ga(payload) for payload in payloads]
        if told := [payload for payload in translated if payload is not None]:
            try:
                await self._connection.send_many(told)
            except ConnectionLost as loss:
                kept = [number for number, payload in enumerate(translated) if payload is not None]
                loss.taken = kept[loss.taken] if loss.taken < len(kept) else len(payloads)
                raise
        else:
            await trio.lowlevel.checkpoint()

    async def send(self, payload: bytes) -> None:
        await self.send_many((payload,))

    def unacknowledged(self) -> int:
        return self._connection.unacknowledged()

    def abort(self, reason: str) -> None:
        self._connection.abort(reason)

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)
