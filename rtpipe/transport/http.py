"""A request head, read strictly; and what an HTTP answer looks like."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import responses
from typing import Final, Self
from urllib.parse import parse_qsl

import h11
import msgspec
import trio

from rtpipe.transport.connection import Peer

MAX_HEAD_BYTES: Final = 64 * 2**10
MAX_HEADERS: Final = 100
MAX_URL_BYTES: Final = 16 * 2**10
_READ_BYTES: Final = 8 * 2**10
_LONGEST_LINE: Final = MAX_URL_BYTES + 64  # a method and a version fit beside the URL
_ANSWER_DEADLINE_S: Final = 10.0
_LINGER_S: Final = 1.0

Body = bytes | dict[str, object]


@dataclass(frozen=True, slots=True)
class Headers:
    """HTTP headers in their order, names in lower case. The repr shows no values: they are secrets."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def received(cls, raw: Iterable[tuple[bytes, bytes]]) -> Self:
        """From h11, whose names are in lower case."""
        return cls(tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw))

    def get(self, name: str) -> str | None:
        """The first value of that name."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of that name."""
        return tuple(value for key, value in self.pairs if key == name.lower())

    def tokens(self, name: str) -> tuple[str, ...]:
        """The members of a comma-separated list, over all headers of that name."""
        members = (member.strip() for value in self.all(name) for member in value.split(","))
        return tuple(member for member in members if member)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Headers({', '.join(name for name, _ in self.pairs)})"


@dataclass(frozen=True, slots=True)
class Request:
    """One request head. `path` stands as it came, undecoded; `query` has its parameters decoded, in order."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = field(repr=False)
    headers: Headers
    peer: Peer
    http_version: str = "1.1"

    def param(self, name: str) -> str | None:
        """The first query parameter of that name."""
        return next((value for key, value in self.query if key == name), None)

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offers in Sec-WebSocket-Protocol. May hold credentials."""
        return self.headers.tokens("sec-websocket-protocol")

    @property
    def is_upgrade(self) -> bool:
        """Whether it asks for a WebSocket; version and key are good then, or it would not have got here."""
        return (
            self.method == "GET"
            and self.http_version == "1.1"
            and "websocket" in map(str.lower, self.headers.tokens("upgrade"))
            and "upgrade" in map(str.lower, self.headers.tokens("connection"))
        )


class RequestRefused(Exception):
    """A request that gets no further. `status`, `code` and the message make the answer."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def error_body(status: int, code: str, message: str) -> dict[str, object]:
    """An error as OpenAI writes it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": code, "param": None}}


def server_side(max_head_bytes: int = MAX_HEAD_BYTES) -> h11.Connection:
    """The parser for one request."""
    return h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)


async def read_head(
    stream: trio.abc.ReceiveStream, parser: h11.Connection, peer: Peer, max_head_bytes: int = MAX_HEAD_BYTES
) -> Request | None:
    """Read one request head; None when the client left before it sent one. The caller sets the deadline.

    Raises RequestRefused. Bytes after the head stay in the parser.
    """
    head = bytearray()
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _unreadable(error, max_head_bytes) from None
        if isinstance(event, h11.Request):
            return _understood(event, peer)
        if event is not h11.NEED_DATA:
            return None
        try:
            data = await stream.receive_some(min(_READ_BYTES, max_head_bytes + 1 - len(head)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        head += data
        if len(head) > _LONGEST_LINE and b"\n" not in head[:_LONGEST_LINE]:
            raise _url_too_long()
        parser.receive_data(bytes(data))


async def respond(
    stream: trio.abc.Stream,
    parser: h11.Connection,
    status: int,
    body: Body,
    headers: dict[str, str] | None = None,
    *,
    to_head: bool = False,
) -> None:
    """Send a whole answer (`to_head`: without the body) and end the stream.

    A client that does not take it is given up within seconds.

    Raises h11.LocalProtocolError for headers that may not be sent, or when there was an answer already.
    """
    data = _answer(parser, status, body, headers or {}, to_head)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        with trio.move_on_after(_ANSWER_DEADLINE_S):
            await stream.send_all(data)
        with trio.move_on_after(_LINGER_S):
            await _drain(stream)


def _answer(parser: h11.Connection, status: int, body: Body, headers: dict[str, str], to_head: bool) -> bytes:
    fields = {name.lower(): value for name, value in headers.items()}
    if isinstance(body, dict):
        body = msgspec.json.encode(body)
        fields.setdefault("content-type", "application/json")
    fields |= {"content-length": str(len(body)), "connection": "close"}
    head = h11.Response(status_code=status, headers=list(fields.items()), reason=responses.get(status, ""))
    return parser.send(head) + (b"" if to_head else body)


async def _drain(stream: trio.abc.Stream) -> None:
    """Read on to the client's end: closing over unread bytes is a reset, which may overtake the answer."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
    while await stream.receive_some(_READ_BYTES):
        pass


def _understood(event: h11.Request, peer: Peer) -> Request:
    target = event.target.decode("ascii")
    if len(target) > MAX_URL_BYTES:
        raise _url_too_long()
    if len(event.headers) > MAX_HEADERS:
        raise RequestRefused(431, "headers_too_large", f"A request may have {MAX_HEADERS} headers.")
    if not target.startswith("/"):
        raise RequestRefused(400, "bad_request", "The request target must be a path.")
    path, _, query = target.partition("?")
    request = Request(
        method=event.method.decode("ascii"),
        path=path,
        query=tuple(parse_qsl(query, keep_blank_values=True)),
        headers=Headers.received(event.headers),
        peer=peer,
        http_version=event.http_version.decode("ascii"),
    )
    if len(request.headers.all("host")) != 1:
        raise RequestRefused(400, "bad_request", "A request needs one Host header.")
    if request.is_upgrade:
        _check_upgrade(request.headers)
    return request


def _check_upgrade(headers: Headers) -> None:
    if headers.all("sec-websocket-version") != ("13",):
        raise RequestRefused(
            426,
            "unsupported_websocket_version",
            "Only version 13 of the WebSocket protocol is spoken here.",
            {"Sec-WebSocket-Version": "13"},
        )
    keys = headers.all("sec-websocket-key")
    try:
        good = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise RequestRefused(
            400, "bad_request", "A WebSocket request needs one Sec-WebSocket-Key of 16 bytes."
        )
    if headers.get("transfer-encoding") is not None or headers.get("content-length") not in (None, "0"):
        raise RequestRefused(400, "bad_request", "A WebSocket request has no body.")


def _unreadable(error: h11.RemoteProtocolError, max_head_bytes: int) -> RequestRefused:
    if error.error_status_hint == 431:
        return RequestRefused(431, "headers_too_large", f"A request head may have {max_head_bytes} bytes.")
    return RequestRefused(400, "bad_request", "The request is not valid HTTP/1.1.")


def _url_too_long() -> RequestRefused:
    return RequestRefused(414, "url_too_long", f"A URL may have {MAX_URL_BYTES} bytes.")
