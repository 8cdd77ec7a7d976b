"""One handler call for each request that comes through the listeners."""

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NoReturn

import trio

from rtpipe.transport import unix
from rtpipe.transport.connection import WRITE_DEADLINE_S, Peer
from rtpipe.transport.crowd import Bound, Crowd, Guest
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.forwarding import BadProxyHeader, Proxy, read_proxy_header
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.http import (
    MAX_HEAD_BYTES,
    RequestRefused,
    error_body,
    read_head,
    respond,
    server_side,
)
from rtpipe.transport.jsonlines import JsonLines
from rtpipe.transport.listening import Listener
from rtpipe.transport.tls import TlsFailed, TlsStream
from rtpipe.transport.websocket import MAX_MESSAGE_BYTES

HEAD_DEADLINE_S: Final = 10.0
_ACCEPT_PAUSE_S: Final = 0.1

logger = logging.getLogger("rtpipe.transport")

Handler = Callable[[Exchange], Awaitable[None]]
LinesHandler = Callable[[JsonLines], Awaitable[None]]
_Converse = Callable[[trio.SocketStream, Guest], Awaitable[None]]


async def serve(
    listeners: Sequence[Listener],
    handler: Handler,
    *,
    lines_handler: LinesHandler | None = None,
    nursery: trio.Nursery | None = None,
    crowd: Crowd | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    reassembly: Reassembly | None = None,
    write_deadline_s: float = WRITE_DEADLINE_S,
    head_deadline_s: float = HEAD_DEADLINE_S,
    max_head_bytes: int = MAX_HEAD_BYTES,
) -> NoReturn:
    """Call `handler` with each request, until cancelled; then the listeners are closed.

    On a Unix socket whoever begins with `{` speaks JSON lines, and `lines_handler` gets it.

    `crowd` counts who is connected, over several serve() too.

    The handlers run in `nursery` where given, and so outlive a cancelled serve(): that is how a drain stops
    accepting. A handler that raises costs its own connection (500, or 1011) and a log entry; one that is
    cancelled closes its WebSocket with 1001.
    """
    service = _Service(
        handler,
        lines_handler,
        crowd or Crowd(),
        max_message_bytes,
        reassembly,
        write_deadline_s,
        head_deadline_s,
        max_head_bytes,
    )
    async with trio.open_nursery() as accepting:
        for listener in listeners:
            converse = partial(_converse, service, listener)
            accepting.start_soon(_accept, listener, service.crowd, converse, nursery or accepting)
    raise AssertionError("accepting ends by cancellation alone")


async def _accept(listener: Listener, crowd: Crowd, converse: _Converse, nursery: trio.Nursery) -> None:
    try:
        while True:
            try:
                stream = await listener.socket.accept()
            except OSError as error:  # out of descriptors or memory: what lives goes on, who comes waits
                crowd.accept_paused(listener.name, error)
                await trio.sleep(_ACCEPT_PAUSE_S)
            else:
                nursery.start_soon(converse, stream, crowd.enter())
    finally:
        await listener.aclose()


@dataclass(frozen=True, slots=True)
class _Service:
    """What is done with whoever connects."""

    handler: Handler
    lines_handler: LinesHandler | None
    crowd: Crowd
    max_message_bytes: int
    reassembly: Reassembly | None
    write_deadline_s: float
    head_deadline_s: float
    max_head_bytes: int


async def _converse(
    service: _Service, listener: Listener, socket_stream: trio.SocketStream, guest: Guest
) -> None:
    """From the accepted socket to its end; no error leaves."""
    stream: trio.abc.Stream = socket_stream
    deadline = trio.current_time() + service.head_deadline_s
    try:
        peer = await _who(socket_stream, listener, deadline)
        # Whom a balancer speaks for is known only when the request is here.
        behind = listener.proxy if listener.proxy and listener.proxy.kind == "forwarded" else None
        if peer is None:
            return
        if behind is None or not behind.trusts(peer.address):
            behind = None
            guest.comes_from(peer.address)
        if (bound := service.crowd.bound_met(guest)) is not None:
            await _turn_away(service.crowd, bound, listener, socket_stream, peer)
            return
        if listener.tls is not None:
            stream = TlsStream(socket_stream, listener.tls, server_side=True)
        if service.lines_handler is not None and await _speaks_lines(listener, socket_stream, deadline):
            guest.arrived()
            await _handle_lines(service, service.lines_handler, socket_stream, peer)
            return
        exchange = await _read_request(service, stream, socket_stream, peer, deadline, behind)
        if exchange is not None and behind is not None:
            guest.comes_from(exchange.request.peer.address)
            if (bound := service.crowd.bound_met(guest)) is not None:
                service.crowd.turn_away(bound, listener.name, exchange.request.peer.address)
                await exchange.respond(*_too_many(bound))
                return
        guest.arrived()
        if exchange is not None:
            await _handle(exchange, service.handler)
    except* Exception as errors:
        logger.exception("listener %s: a connection failed", listener.name, exc_info=errors)
    finally:
        guest.leave()
        await trio.aclose_forcefully(stream)


async def _who(stream: trio.SocketStream, listener: Listener, deadline: float) -> Peer | None:
    """Who connected, or for whom a trusted balancer did. None: the balancer did not say."""
    peer = _peer(stream, listener)
    proxy = listener.proxy
    if proxy is None or proxy.kind != "v2" or not proxy.trusts(peer.address):
        return peer
    try:
        with trio.fail_at(deadline):
            told = await read_proxy_header(stream)
    except (BadProxyHeader, trio.TooSlowError, trio.BrokenResourceError) as error:
        logger.warning("listener %s: %s: %s", listener.name, peer.address, error or "no PROXY header in time")
        return None
    return peer if told is None else replace(peer, address=told[0], port=told[1])


async def _turn_away(
    crowd: Crowd, bound: Bound, listener: Listener, stream: trio.SocketStream, peer: Peer
) -> None:
    """Say that it is one too many, to a few at a time: who is told keeps its descriptor for a second."""
    crowd.turn_away(bound, listener.name, peer.address)
    if listener.tls is None and crowd.may_linger:
        with crowd.lingering():
            await respond(stream, server_side(), *_too_many(bound))


def _too_many(bound: Bound) -> tuple[int, dict[str, object], dict[str, str]]:
    status, message = {
        "connections": (503, "Too many connections; try again in a moment."),
        "connections_per_address": (429, "Too many connections from your address."),
    }[bound]
    return status, error_body(status, "too_many_connections", message), {"Retry-After": "5"}


async def _speaks_lines(listener: Listener, stream: trio.SocketStream, deadline: float) -> bool:
    """Whether the first byte, which stays where it is, begins a JSON object: no HTTP method does."""
    if not listener.is_unix:
        return False
    with trio.move_on_at(deadline), suppress(OSError):
        return await stream.socket.recv(1, socket.MSG_PEEK) == b"{"
    return False


async def _handle_lines(
    service: _Service, handler: LinesHandler, stream: trio.SocketStream, peer: Peer
) -> None:
    lines = JsonLines(
        stream,
        peer,
        max_line_bytes=service.max_message_bytes,
        write_deadline_s=service.write_deadline_s,
        reassembly=service.reassembly,
    )
    try:
        await handler(lines)
    except Exception:
        logger.exception("%s: the handler failed", peer.address)
        await lines.close(1011, "internal error")
    finally:
        lines.discard()


async def _read_request(
    service: _Service,
    stream: trio.abc.Stream,
    socket_stream: trio.SocketStream,
    peer: Peer,
    deadline: float,
    behind: Proxy | None,
) -> Exchange | None:
    """None when the client left, or had to be refused already. One deadline for TLS and the head."""
    parser = server_side(service.max_head_bytes)
    talks = not isinstance(stream, TlsStream)
    try:
        with trio.fail_at(deadline):
            if isinstance(stream, TlsStream):
                await stream.do_handshake()
                talks = True
                peer = replace(peer, subject=stream.peer_subject)
            request = await read_head(stream, parser, peer, service.max_head_bytes)
        if request is not None and behind is not None:
            peer = replace(peer, address=behind.caller(peer.address, request.headers), port=None)
            request = replace(request, peer=peer)
    except trio.TooSlowError:
        if not talks:
            logger.debug("%s: no TLS handshake in time", peer.address)
            return None
        refusal = RequestRefused(408, "request_timeout", "The request head did not come in time.")
    except TlsFailed as error:
        logger.debug("%s: TLS: %s", peer.address, error)
        if error.reason != "HTTP_REQUEST":
            return None
        stream = socket_stream  # which can carry the answer to somebody who came without TLS
        refusal = RequestRefused(
            400, "tls_required", "This port speaks TLS: connect with https:// or wss://."
        )
    except trio.BrokenResourceError:
        return None
    except RequestRefused as error:
        refusal = error
    else:
        if request is None:
            return None
        return Exchange(
            stream,
            parser,
            request,
            max_message_bytes=service.max_message_bytes,
            reassembly=service.reassembly,
            write_deadline_s=service.write_deadline_s,
        )
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


def _peer(stream: trio.SocketStream, listener: Listener) -> Peer:
    try:
        if listener.is_unix:
            pid, uid, gid = unix.credentials(stream.socket)
            return Peer(f"uid {uid}", listener=listener.name, pid=pid, uid=uid, gid=gid)
        host, port, *_ = stream.socket.getpeername()
    except OSError:  # already gone; reading will tell
        return Peer("unknown", None, listener.name)
    return Peer(host, port, listener.name)
