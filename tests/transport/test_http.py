import json

import h11
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from rtpipe.transport.connection import Peer
from rtpipe.transport.http import Request, RequestRefused, read_head, respond, server_side

PEER = Peer("192.0.2.1", 4711, "main")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def head(first: str = "GET / HTTP/1.1", *headers: str, host: str = "Host: gateway") -> bytes:
    lines = (first, host, *headers) if host else (first, *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def upgrade(*headers: str, version: str = "13", key: str = f"Sec-WebSocket-Key: {KEY}") -> bytes:
    more = [line for line in (key, *headers) if line]
    return head(
        "GET /v1/realtime?model=m HTTP/1.1",
        "Upgrade: WebSocket",
        "Connection: keep-alive, Upgrade",
        f"Sec-WebSocket-Version: {version}",
        *more,
    )


async def read(wire: bytes, *, piece: int = 0) -> Request | None:
    ours, theirs = memory_stream_pair()
    piece = piece or len(wire) or 1
    for start in range(0, len(wire), piece):
        await theirs.send_all(wire[start : start + piece])
    await theirs.send_eof()
    return await read_head(ours, server_side(), PEER)


async def refused(wire: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await read(wire)
    return caught.value


async def test_a_request_byte_by_byte() -> None:
    wire = upgrade(
        "Authorization: Bearer sk-secret",
        "X-Two: 1",
        "x-two: 2",
        "Sec-WebSocket-Protocol: realtime, key.sk-secret",
    ).replace(b"?model=m", b"?model=gpt%20x&empty=&model=second&key=sk-secret")
    request = await read(wire, piece=1)
    assert request == await read(wire)
    assert request is not None
    assert (request.method, request.path, request.peer) == ("GET", "/v1/realtime", PEER)
    assert request.query == (
        ("model", "gpt x"),
        ("empty", ""),
        ("model", "second"),
        ("key", "sk-secret"),
    )
    assert request.param("model") == "gpt x"
    assert request.param("none") is None
    assert request.headers.get("AUTHORIZATION") == "Bearer sk-secret"
    assert request.headers.all("X-Two") == ("1", "2")
    assert request.headers.get("none") is None
    assert request.subprotocols == ("realtime", "key.sk-secret")
    assert request.is_upgrade
    assert "sk-secret" not in repr(request)


async def test_a_path_is_not_decoded_or_resolved() -> None:
    request = await read(head("GET /a/../b%2Fc HTTP/1.1"))
    assert request is not None
    assert request.path == "/a/../b%2Fc"


async def test_a_client_that_leaves_first_is_nobody() -> None:
    assert await read(b"") is None
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    assert await read_head(ours, server_side(), PEER) is None


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS"),
        pytest.param(b"nonsense\r\n\r\n", 400, id="nonsense"),
        pytest.param(head(host=""), 400, id="no Host"),
        pytest.param(head("GET / HTTP/1.0", host=""), 400, id="no Host in 1.0"),
        pytest.param(head("GET / HTTP/1.1", "Host: other"), 400, id="two Hosts"),
        pytest.param(head("GET http://gateway/ HTTP/1.1"), 400, id="absolute"),
        pytest.param(head("CONNECT gateway:1 HTTP/1.1"), 400, id="CONNECT"),
        pytest.param(head("GET / HTTP/1.1", "bad header"), 400, id="bad header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost", 400, id="half a head"),
        pytest.param(head("GET /" + "x" * 2**14 + " HTTP/1.1"), 414, id="URL over 16 KiB"),
        pytest.param(head("GET /" + "x" * 2**16 + " HTTP/1.1"), 414, id="URL of 64 KiB"),
        pytest.param(b"GET /" + b"x" * 2**20, 414, id="endless URL"),
        pytest.param(head("GET / HTTP/1.1", "X: " + "x" * 2**16), 431, id="header of 64 KiB"),
        pytest.param(head("GET / HTTP/1.1", *["X: y"] * 100), 431, id="101 headers"),
        pytest.param(head("GET / HTTP/1.1", *["X: y"] * 2000), 431, id="2,000 headers"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2**16, 431, id="endless headers"),
        pytest.param(upgrade(version="12"), 426, id="version 12"),
        pytest.param(upgrade(key=""), 400, id="no key"),
        pytest.param(upgrade(f"Sec-WebSocket-Key: {KEY}"), 400, id="two keys"),
        pytest.param(upgrade(key="Sec-WebSocket-Key: c2hvcnQ="), 400, id="short key"),
        pytest.param(upgrade(key="Sec-WebSocket-Key: ?"), 400, id="bad key"),
        pytest.param(upgrade("Content-Length: 5") + b"hello", 400, id="upgrade with a body"),
    ],
)
async def test_what_gets_no_further(wire: bytes, status: int) -> None:
    refusal = await refused(wire)
    assert refusal.status == status
    assert (refusal.headers == {"Sec-WebSocket-Version": "13"}) == (status == 426)


async def test_the_largest_that_passes() -> None:
    assert await read(head("GET /" + "x" * (2**14 - 1) + " HTTP/1.1"))
    assert await read(head("GET / HTTP/1.1", *["X: y"] * 99))
    assert await read(head("GET / HTTP/1.1", "X: " + "x" * (2**16 - 100)), piece=1000)


@pytest.mark.parametrize(
    "wire",
    [
        head(),
        upgrade().replace(b"GET", b"POST"),
        upgrade().replace(b"1.1\r", b"1.0\r"),
        upgrade().replace(b"WebSocket\r", b"h2c\r"),
        upgrade().replace(b"keep-alive, Upgrade", b"keep-alive"),
    ],
)
async def test_what_is_no_upgrade(wire: bytes) -> None:
    request = await read(wire)
    assert request is not None
    assert not request.is_upgrade


async def answered(body: bytes | dict[str, object], *, method: str = "GET") -> tuple[h11.Response, bytes]:
    ours, theirs = memory_stream_pair()
    parser, client = server_side(), h11.Connection(h11.CLIENT)
    request = h11.Request(method=method, target="/", headers=[("Host", "gateway")])
    await theirs.send_all(client.send(request) + client.send(h11.EndOfMessage()))
    await theirs.send_eof()
    assert await read_head(ours, parser, PEER)
    await respond(ours, parser, 429, body, {"Retry-After": "3"}, to_head=method == "HEAD")
    client.receive_data(b"".join([bytes(data) async for data in theirs]))
    response, content = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage)
    return response, content


async def test_answers() -> None:
    response, content = await answered({"a": "ä"})
    assert (response.status_code, response.reason) == (429, b"Too Many Requests")
    headers = dict(response.headers)
    assert headers[b"retry-after"] == b"3"
    assert headers[b"connection"] == b"close"
    assert headers[b"content-type"] == b"application/json"
    assert json.loads(content) == {"a": "ä"}
    assert (await answered(b"ok"))[1] == b"ok"
    assert (await answered(b"ok", method="HEAD"))[1] == b""


async def test_an_answer_that_nobody_takes_is_given_up(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    start = trio.current_time()
    await respond(ours, server_side(), 400, b"no")
    assert trio.current_time() - start == pytest.approx(1)
    assert b" 400 Bad Request" in await theirs.receive_some()
