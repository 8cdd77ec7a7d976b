"""Listening sockets, and one handler call for each request that comes through them."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NoReturn

import trio

from rtpipe.transport.connection import WRITE_DEADLINE_S, Peer
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.http import RequestRefused, error_body, read_head, respond, server_side
from rtpipe.transport.websocket import MAX_MESSAGE_BYTES

HEAD_DEADLINE_S: Final = 10.0
_ACCEPT_PAUSE_S: Final = 0.1

logger = logging.getLogger("rtpipe.transport")

Handler = Callable[[Exchange], Awaitable[None]]
_Converse = Callable[[trio.SocketStream, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listening socket and the name by which the operator knows it."""

    name: str
    socket: trio.SocketListener

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound: port 0 has become a real one."""
        host, port, *_ = self.socket.socket.getsockname()
        return host, port


async def open_tcp(name: str, host: str, port: int) -> list[Listener]:
    """Bind and listen; one listener for each address that `host` resolves to. Raises OSError."""
    return [Listener(name, socket) for socket in await trio.open_tcp_listeners(port, host=host)]


async def serve(
    listeners: Sequence[Listener],
    handler: Handler,
    *,
    nursery: trio.Nursery | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    write_deadline_s: float = WRITE_DEADLINE_S,
    head_deadline_s: float = HEAD_DEADLINE_S,
) -> NoReturn:
    """Call `handler` with each request, until cancelled; then the listeners are closed.

    The handlers run in `nursery` where given, and so outlive a cancelled serve(): that is how a drain stops
    accepting. A handler that raises costs its own connection (500, or 1011) and a log entry; one that is
    cancelled closes its WebSocket with 1001.
    """
    new_exchange = partial(Exchange, max_message_bytes=max_message_bytes, write_deadline_s=write_deadline_s)
    async with trio.open_nursery() as accepting:
        for listener in listeners:
            converse = partial(_converse, new_exchange, handler, head_deadline_s)
            accepting.start_soon(_accept, listener, converse, nursery or accepting)
    raise AssertionError("accepting ends by cancellation alone")


async def _accept(listener: Listener, converse: _Converse, nursery: trio.Nursery) -> None:
    pausing = False
    async with listener.socket:
        while True:
            try:
                stream = await listener.socket.accept()
            except OSError as error:  # out of descriptors or memory: what lives goes on, who comes waits
                if not pausing:
                    logger.warning("listener %s: accept paused: %s", listener.name, error)
                pausing = True
                await trio.sleep(_ACCEPT_PAUSE_S)
            else:
                pausing = False
                nursery.start_soon(converse, stream, listener.name)


async def _converse(
    new_exchange: Callable[..., Exchange],
    handler: Handler,
    head_deadline_s: float,
    stream: trio.SocketStream,
    name: str,
) -> None:
    """From the accepted socket to its end; no error leaves."""
    try:
        peer = _peer(stream, name)
        exchange = await _read_request(new_exchange, stream, peer, head_deadline_s)
        if exchange is not None:
            await _handle(exchange, handler)
    except* Exception as errors:
        logger.exception("listener %s: a connection failed", name, exc_info=errors)
    finally:
        await trio.aclose_forcefully(stream)


async def _read_request(
    new_exchange: Callable[..., Exchange], stream: trio.abc.Stream, peer: Peer, head_deadline_s: float
) -> Exchange | None:
    """None when the client left, or had to be refused already."""
    parser = server_side()
    try:
        with trio.fail_after(head_deadline_s):
            request = await read_head(stream, parser, peer)
    except trio.TooSlowError:
        refusal = RequestRefused(408, "request_timeout", "The request head did not come in time.")
    except RequestRefused as error:
        refusal = error
    else:
        return None if request is None else new_exchange(stream, parser, request)
    logger.debug("%s: refused with %d %s", peer.address, refusal.status, refusal.code)
    await respond(stream, parser, refusal.status, *_answer_to(refusal))
    return None


async def _handle(exchange: Exchange, handler: Handler) -> None:
    ending = (1001, "going away")  # how a cancelled handler leaves its WebSocket
    try:
        try:
            await handler(exchange)
        except RequestRefused as refusal:
            await exchange.respond(refusal.status, *_answer_to(refusal))
        ending = (1000, "")
    except* Exception as errors:
        ending = (1011, "internal error")
        logger.exception("%s: the handler failed", exchange.request.peer.address, exc_info=errors)
    finally:
        await exchange.finish(*ending)


def _answer_to(refusal: RequestRefused) -> tuple[dict[str, object], dict[str, str]]:
    return error_body(refusal.status, refusal.code, str(refusal)), refusal.headers


def _peer(stream: trio.SocketStream, name: str) -> Peer:
    try:
        host, port, *_ = stream.socket.getpeername()
    except OSError:  # already gone; reading will tell
        return Peer("unknown", None, name)
    return Peer(host, port, name)
