"""The one HTTP request that comes on each connection: read it, answer it, or hand it on to the WebSocket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import msgspec
import trio

MAX_BODY_BYTES = 1024 * 1024
_READ_BYTES = 16 * 1024


class BadRequest(Exception):
    """A request that is refused; `status`, `code` (of OpenAI's error object) and the text say why."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


@dataclass(frozen=True)
class Request:
    """`headers`: names in lower case. `raw`: everything read so far, for whoever reads the request again."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def upgrades(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def subprotocols(self) -> list[str]:
        return [name.strip() for name in self.headers.get("sec-websocket-protocol", "").split(",")]


async def read_request(stream: trio.abc.ReceiveStream) -> Request | None:
    """The request, or None if the peer left before it was whole. Raises BadRequest."""
    reader = h11.Connection(h11.SERVER)
    raw, body = bytearray(), bytearray()
    head: h11.Request | None = None
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint, f"Bad request: {error}") from None
        if event is h11.NEED_DATA:
            data = await stream.receive_some(_READ_BYTES)
            raw += data
            reader.receive_data(bytes(data))
        elif isinstance(event, h11.Request):
            head = event
            if _request(head, b"", b"").upgrades:
                return _request(head, b"", bytes(raw))
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise BadRequest(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body), bytes(raw))
        else:
            return None


async def answer(
    stream: trio.abc.SendStream, status: int, body: Any, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """Answer with JSON, and no further request on this connection."""
    payload = msgspec.json.encode(body)
    writer = h11.Connection(h11.SERVER)
    sent = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(payload))),
        ("Connection", "close"),
        *headers,
    ]
    head = writer.send(h11.Response(status_code=status, headers=sent))
    await stream.send_all((head or b"") + payload)


def _request(head: h11.Request, body: bytes, raw: bytes) -> Request:
    target = urlsplit(head.target.decode("latin-1"))
    return Request(
        method=head.method.decode("ascii"),
        path=target.path,
        query={name: values[0] for name, values in parse_qs(target.query).items()},
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        body=body,
        raw=raw,
    )
