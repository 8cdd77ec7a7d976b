"""Listening sockets, and one handler call for each request that comes through them."""

import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import trio

from rtpipe.transport import unix
from rtpipe.transport.connection import WRITE_DEADLINE_S, Peer
from rtpipe.transport.crowd import Crowd, Guest
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.http import RequestRefused, error_body, read_head, respond, server_side
from rtpipe.transport.jsonlines import JsonLines
from rtpipe.transport.tls import TlsFailed, TlsStream
from rtpipe.transport.websocket import MAX_MESSAGE_BYTES

HEAD_DEADLINE_S: Final = 10.0
_ACCEPT_PAUSE_S: Final = 0.1

logger = logging.getLogger("rtpipe.transport")

Handler = Callable[[Exchange], Awaitable[None]]
LinesHandler = Callable[[JsonLines], Awaitable[None]]
_Converse = Callable[[trio.SocketStream, Guest], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listening socket and the name by which the operator knows it.

    `tls`: what comes through it is TLS by this context. `file`: the socket in the file system that goes with
    it. `is_passed`: somebody else made it, and keeps it when we are done.
    """

    name: str
    socket: trio.SocketListener
    tls: ssl.SSLContext | None = None
    file: unix.SocketFile | None = None
    is_passed: bool = False

    @property
    def is_unix(self) -> bool:
        """A Unix socket: the kernel knows who connects, and JSON lines are spoken."""
        return self.socket.socket.family == socket.AF_UNIX

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound: port 0 has become a real one. For TCP alone."""
        host, port, *_ = self.socket.socket.getsockname()
        return host, port

    @property
    def url(self) -> str:
        """Where it is, without a path: ``ws://127.0.0.1:8787``, ``wss://[::1]:8443``, ``unix:/run/x``."""
        if self.is_unix:
            return f"unix:{self.socket.socket.getsockname()}"
        host, port = self.address
        return f"{'ws' if self.tls is None else 'wss'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def aclose(self) -> None:
        """Listen no more; a socket file goes, if it is still ours."""
        if self.file is not None:
            self.file.remove()
        await self.socket.aclose()


async def open_tcp(name: str, host: str, port: int, tls: ssl.SSLContext | None = None) -> list[Listener]:
    """Bind and listen; one listener for each address that `host` resolves to. Raises OSError."""
    return [Listener(name, socket, tls) for socket in await trio.open_tcp_listeners(port, host=host)]


def open_unix(name: str, path: Path, mode: int, group: int | None = None) -> Listener:
    """Bind and listen at `path`, for those whom `mode` and `group` allow. Raises OSError as `unix.listen`."""
    made, file = unix.listen(path, mode, group)
    return Listener(name, trio.SocketListener(trio.socket.from_stdlib_socket(made)), file=file)


def take_over(name: str, made: socket.socket, tls: ssl.SSLContext | None = None) -> Listener:
    """A socket that somebody else made and listens at. Raises OSError for one that cannot be served."""
    if made.type != socket.SOCK_STREAM or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(errno.EINVAL, "it is no stream socket that is listened at")
    if made.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise OSError(errno.EAFNOSUPPORT, "it is neither TCP nor a Unix socket")
    return Listener(name, trio.SocketListener(trio.socket.from_stdlib_socket(made)), tls, is_passed=True)


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
    )
    async with trio.open_nursery() as accepting:
        for listener in listeners:
            converse = partial(_converse, service, listener)
            accepting.start_soon(_accept, listener, service.crowd, converse, nursery or accepting)
    raise AssertionError("accepting ends by cancellation alone")


async def _accept(listener: Listener, crowd: Crowd, converse: _Converse, nursery: trio.Nursery) -> None:
    pausing = False
    try:
        while True:
            try:
                stream = await listener.socket.accept()
            except OSError as error:  # out of descriptors or memory: what lives goes on, who comes waits
                if not pausing:
                    logger.warning("listener %s: accept paused: %s", listener.name, error)
                    crowd.accept_pauses += 1
                pausing = True
                await trio.sleep(_ACCEPT_PAUSE_S)
            else:
                pausing = False
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


async def _converse(
    service: _Service, listener: Listener, socket_stream: trio.SocketStream, guest: Guest
) -> None:
    """From the accepted socket to its end; no error leaves."""
    stream: trio.abc.Stream = socket_stream
    deadline = trio.current_time() + service.head_deadline_s
    try:
        peer = _peer(socket_stream, listener)
        if listener.tls is not None:
            stream = TlsStream(socket_stream, listener.tls, server_side=True)
        if service.lines_handler is not None and await _speaks_lines(listener, socket_stream, deadline):
            guest.arrived()
            await _handle_lines(service, service.lines_handler, socket_stream, peer)
            return
        exchange = await _read_request(service, stream, socket_stream, peer, deadline)
        guest.arrived()
        if exchange is not None:
            await _handle(exchange, service.handler)
    except* Exception as errors:
        logger.exception("listener %s: a connection failed", listener.name, exc_info=errors)
    finally:
        guest.leave()
        await trio.aclose_forcefully(stream)


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
) -> Exchange | None:
    """None when the client left, or had to be refused already. One deadline for TLS and the head."""
    parser = server_side()
    talks = not isinstance(stream, TlsStream)
    try:
        with trio.fail_at(deadline):
            if isinstance(stream, TlsStream):
                await stream.do_handshake()
                talks = True
            request = await read_head(stream, parser, peer)
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
