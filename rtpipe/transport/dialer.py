"""Opening a WebSocket to somebody else's server. No error text holds a header, a query or a body."""

import functools
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import h11
import trio
from wsproto.utilities import generate_accept_token, generate_nonce

from rtpipe.transport.connection import WRITE_DEADLINE_S, Connection, Peer
from rtpipe.transport.contexts import client_context
from rtpipe.transport.encoding import Side
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.http import MAX_HEAD_BYTES, Headers
from rtpipe.transport.proxies import Proxy, ProxyFailed, open_tunnel
from rtpipe.transport.tls import TlsStream
from rtpipe.transport.websocket import KEEPALIVE_S, MAX_MESSAGE_BYTES, WebSocketConnection

DIAL_TIMEOUT_S: Final = 10.0
_BODY_BYTES: Final = 64 * 2**10
_BODY_DEADLINE_S: Final = 2.0
_READ_BYTES: Final = 16 * 2**10


class DialRefused(Exception):
    """The server answered the handshake with an HTTP status of its own. `body` is cut at 64 KiB."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"the server answered {status}")
        self.status = status
        self.headers = headers
        self.body = body


class DialFailed(Exception):
    """No WebSocket: name, connection, TLS or handshake; the text says which."""


class DialTimeout(Exception):
    """The server did not answer in time."""


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    secure: bool
    resource: str = field(repr=False)

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


async def dial(
    url: str,
    headers: Iterable[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    *,
    timeout_s: float = DIAL_TIMEOUT_S,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    reassembly: Reassembly | None = None,
    write_deadline_s: float = WRITE_DEADLINE_S,
    keepalive_s: float = KEEPALIVE_S,
    tls: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
) -> Connection:
    """Connect to a ws:// or wss:// URL; the caller closes the connection. Certificates are always verified.

    `timeout_s` bounds name, connection, TLS and handshake together. `tls` replaces the system's trust, for a
    private authority: see `client_context`. With `proxy` all of it happens inside a tunnel. Raises
    DialRefused, DialFailed, DialTimeout, and ValueError for a URL of another kind.
    """
    target = _parse(url)
    stream: trio.abc.Stream | None = None
    try:
        with trio.fail_after(timeout_s):
            stream = await _connect(target, tls, proxy)
            leftover = await _shake_hands(stream, target, headers, subprotocols)
    except trio.TooSlowError:
        await _close(stream)
        raise DialTimeout(f"{target.host}:{target.port} did not answer within {timeout_s:g} s") from None
    except BaseException:
        await _close(stream)
        raise
    return WebSocketConnection(
        stream,
        Side.CLIENT,
        Peer(target.host, target.port),
        leftover=leftover,
        max_message_bytes=max_message_bytes,
        reassembly=reassembly,
        write_deadline_s=write_deadline_s,
        keepalive_s=keepalive_s,
    )


def _parse(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError("a WebSocket URL is ws[s]://host[:port]/path[?query]")
    secure = parts.scheme == "wss"
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.hostname, parts.port or (443 if secure else 80), secure, resource)


async def _connect(target: _Target, tls: ssl.SSLContext | None, proxy: Proxy | None) -> trio.abc.Stream:
    try:
        if proxy is None:
            stream = await trio.open_tcp_stream(target.host, target.port)
        else:
            stream = await open_tunnel(proxy, target.host, target.port)
    except (OSError, ProxyFailed) as error:
        through = "" if proxy is None else f" through the proxy {proxy.host}:{proxy.port}"
        raise DialFailed(f"cannot connect to {target.host}:{target.port}{through}: {error}") from None
    if not target.secure:
        return stream
    secured = TlsStream(stream, tls or _system_trust(), server_hostname=target.host)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await _close(stream)
        raise DialFailed(f"TLS with {target.host}:{target.port}: {error or 'broken off'}") from None
    except BaseException:
        await _close(stream)
        raise
    return secured


_system_trust = functools.cache(client_context)  # reading it takes tens of milliseconds


async def _shake_hands(
    stream: trio.abc.Stream, target: _Target, headers: Iterable[tuple[str, str]], subprotocols: Sequence[str]
) -> bytes:
    """Ask for the WebSocket; returns what came after the answer's head."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    nonce = generate_nonce()
    try:
        await stream.send_all(_request(parser, target, nonce, headers, subprotocols))
        answer = await _read_answer(stream, parser)
        if isinstance(answer, h11.Response):
            raise DialRefused(
                answer.status_code, Headers.received(answer.headers), await _read_body(stream, parser)
            )
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        raise DialFailed(f"{target.host}:{target.port} broke off the handshake or speaks no HTTP") from None
    fault = _fault(Headers.received(answer.headers), nonce, subprotocols)
    if fault is not None:
        raise DialFailed(f"{target.host}:{target.port} answered 101 with {fault}")
    return parser.trailing_data[0]


def _request(
    parser: h11.Connection,
    target: _Target,
    nonce: bytes,
    headers: Iterable[tuple[str, str]],
    subprotocols: Sequence[str],
) -> bytes:
    fields = [
        ("Host", target.host_header),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", nonce.decode()),
        ("Sec-WebSocket-Version", "13"),
        *headers,
    ]
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    try:
        request = parser.send(h11.Request(method="GET", target=target.resource, headers=fields))
        parser.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, UnicodeEncodeError):  # whose texts quote the header
        raise DialFailed("the URL or a header holds characters that HTTP cannot carry") from None
    return request


async def _read_answer(
    stream: trio.abc.Stream, parser: h11.Connection
) -> h11.Response | h11.InformationalResponse:
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response) or (
            isinstance(event, h11.InformationalResponse) and event.status_code == 101
        ):
            return event


async def _read_body(stream: trio.abc.Stream, parser: h11.Connection) -> bytes:
    """The refusal's body, or as much of it as comes soon: the status is what counts."""
    body = bytearray()
    with (
        trio.move_on_after(_BODY_DEADLINE_S),
        suppress(h11.RemoteProtocolError, trio.BrokenResourceError),
    ):
        while len(body) < _BODY_BYTES:
            event = parser.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif event is h11.NEED_DATA:
                parser.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            else:
                break
    return bytes(body[:_BODY_BYTES])


def _fault(headers: Headers, nonce: bytes, subprotocols: Sequence[str]) -> str | None:
    if "websocket" not in map(str.lower, headers.tokens("upgrade")):
        return "no Upgrade: websocket"
    if "upgrade" not in map(str.lower, headers.tokens("connection")):
        return "no Connection: Upgrade"
    if headers.all("sec-websocket-accept") != (generate_accept_token(nonce).decode(),):
        return "a wrong Sec-WebSocket-Accept"
    if headers.all("sec-websocket-extensions"):
        return "an extension nobody asked for"
    if not set(headers.all("sec-websocket-protocol")) <= set(subprotocols):
        return "a subprotocol nobody asked for"
    return None


async def _close(stream: trio.abc.Stream | None) -> None:
    if stream is not None:
        await trio.aclose_forcefully(stream)
