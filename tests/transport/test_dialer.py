import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock
from wsproto.utilities import generate_accept_token

from rtpipe.transport.connection import Closing, ConnectionLost, Peer
from rtpipe.transport.dialer import DialFailed, DialRefused, DialTimeout, dial
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.listening import open_tcp
from rtpipe.transport.server import serve

CERTIFICATE = Path(__file__).parent / "localhost.pem"
Answer = Callable[[trio.abc.Stream, bytes], Awaitable[None]]
Upstream = Callable[..., Awaitable[int]]


@pytest.fixture
def upstream(nursery: trio.Nursery) -> Upstream:
    """A server that reads a request head and hands it, with the stream, to `answer`."""

    async def start(answer: Answer, tls: ssl.SSLContext | None = None) -> int:
        async def handle(stream: trio.abc.Stream) -> None:
            try:
                if tls is not None:
                    stream = trio.SSLStream(stream, tls, server_side=True)  # type: ignore[arg-type, type-var]
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    data = await stream.receive_some()
                    if not data:
                        return
                    head += data
                await answer(stream, head)
            except trio.BrokenResourceError:
                pass

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        return listeners[0].socket.getsockname()[1]

    return start


def switching(head: bytes, *more: bytes, accept: bytes = b"") -> bytes:
    key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = accept or b"Sec-WebSocket-Accept: " + generate_accept_token(key)
    lines = (
        b"HTTP/1.1 101 Fine",
        b"Upgrade: WebSocket",
        b"Connection: keep-alive, upgrade",
        accept,
        *more,
        b"",
        b"",
    )
    return b"\r\n".join(lines)


def saying(answer: bytes) -> Answer:
    async def say(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(answer)

    return say


async def test_what_is_asked_and_what_comes_with_the_answer(upstream: Upstream) -> None:
    heads: list[bytes] = []

    async def answer(stream: trio.abc.Stream, head: bytes) -> None:
        heads.append(head)
        early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        for byte in (
            early + switching(head, b"Sec-WebSocket-Protocol: realtime") + b"\x81\x05hello\x88\x02\x03\xe9"
        ):
            await stream.send_all(bytes([byte]))
        while await stream.receive_some():
            pass

    port = await upstream(answer)
    connection = await dial(
        f"ws://127.0.0.1:{port}/v1/realtime?model=m",
        [("Authorization", "Bearer k"), ("X-Two", "1"), ("X-Two", "2")],
        ["realtime", "other"],
    )
    assert connection.peer == Peer("127.0.0.1", port)
    assert await connection.receive() == b"hello"
    with pytest.raises(ConnectionLost) as caught:
        await connection.receive()
    assert caught.value.closing == Closing(1001, "", clean=True)
    first, *fields = heads[0].decode().split("\r\n")
    assert first == "GET /v1/realtime?model=m HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in fields
    assert "Authorization: Bearer k" in fields
    assert "X-Two: 1" in fields
    assert "X-Two: 2" in fields
    assert "Sec-WebSocket-Protocol: realtime, other" in fields
    assert "xtensions" not in heads[0].decode()


@pytest.mark.parametrize("status", [302, 401, 403, 429, 503])
async def test_refusals_keep_status_headers_and_body(upstream: Upstream, status: int) -> None:
    answer = b"HTTP/1.1 %d No\r\nRetry-After: 7\r\nX-Id: secret\r\nContent-Length: 6\r\n\r\nsecret" % status
    port = await upstream(saying(answer))
    with pytest.raises(DialRefused) as caught:
        await dial(f"ws://127.0.0.1:{port}/")
    refusal = caught.value
    assert refusal.status == status
    assert refusal.headers.get("Retry-After") == "7"
    assert refusal.body == b"secret"
    assert "secret" not in f"{refusal} {refusal!r} {refusal.headers!r}"


async def test_a_refusal_counts_whatever_becomes_of_its_body(
    upstream: Upstream, autojump_clock: MockClock
) -> None:
    async def hang(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nsoon")
        await trio.sleep_forever()

    endless = saying(b"HTTP/1.1 503 No\r\n\r\n" + b"x" * 2**20)
    for answer, length in (
        (hang, 4),
        (saying(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nsoon"), 4),
        (endless, 2**16),
    ):
        with pytest.raises(DialRefused) as caught:
            await dial(f"ws://127.0.0.1:{await upstream(answer)}/")
        assert len(caught.value.body) == length


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(lambda head: b"SSH-2.0-x\r\n\r\n", "no HTTP", id="not HTTP"),
        pytest.param(lambda head: b"HTTP/1.1 101 x\r\nUpgr", "broke off", id="broken off"),
        pytest.param(lambda head: b"HTTP/1.1 101 x\r\nX: " + b"y" * 2**17, "no HTTP", id="endless"),
        pytest.param(lambda head: switching(head, accept=b"X: y"), "Accept", id="no accept"),
        pytest.param(
            lambda head: switching(head, accept=b"Sec-WebSocket-Accept: eA=="), "Accept", id="wrong accept"
        ),
        pytest.param(
            lambda head: switching(head).replace(b"WebSocket\r", b"h2c\r"), "Upgrade", id="no upgrade"
        ),
        pytest.param(
            lambda head: switching(head).replace(b", upgrade", b""), "Connection", id="no connection"
        ),
        pytest.param(
            lambda head: switching(head, b"Sec-WebSocket-Protocol: x"), "subprotocol", id="subprotocol"
        ),
        pytest.param(
            lambda head: switching(head, b"Sec-WebSocket-Extensions: permessage-deflate"),
            "extension",
            id="extension",
        ),
    ],
)
async def test_answers_that_are_none(upstream: Upstream, fault: Callable[[bytes], bytes], says: str) -> None:
    async def answer(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(fault(head))

    with pytest.raises(DialFailed, match=says):
        await dial(f"ws://127.0.0.1:{await upstream(answer)}/")


async def test_nobody_there() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(DialFailed, match=f"127.0.0.1:{port}"):
        await dial(f"ws://127.0.0.1:{port}/?key=secret")


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(DialFailed, match=r"nowhere\.example:443: .*not known"):
        await dial("wss://nowhere.example/")


@pytest.mark.parametrize(
    "url", ["http://host/", "ws:///path", "wss://user:pass@host/", "ws://host/#x", "host"]
)
async def test_urls_of_another_kind(url: str) -> None:
    with pytest.raises(ValueError, match="WebSocket URL"):
        await dial(url)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_server_that_hangs_is_given_up_in_time(autojump_clock: MockClock, scheme: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")  # which never accepts
    port = listeners[0].socket.getsockname()[1]
    begun = trio.current_time()
    with pytest.raises(DialTimeout, match="within 5 s"):
        await dial(f"{scheme}://127.0.0.1:{port}/?key=secret", timeout_s=5)
    assert trio.current_time() - begun == pytest.approx(5)
    await listeners[0].aclose()


async def test_an_answer_that_trickles_is_given_up_in_time(
    upstream: Upstream, autojump_clock: MockClock
) -> None:
    async def trickle(stream: trio.abc.Stream, head: bytes) -> None:
        while True:
            await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await trio.sleep(1)

    with pytest.raises(DialTimeout):
        await dial(f"ws://127.0.0.1:{await upstream(trickle)}/")


async def test_a_cancelled_dial_leaves_no_socket(upstream: Upstream, autojump_clock: MockClock) -> None:
    gone = trio.Event()

    async def wait(stream: trio.abc.Stream, head: bytes) -> None:
        assert await stream.receive_some() == b""
        gone.set()

    port = await upstream(wait)
    with trio.move_on_after(1):
        await dial(f"ws://127.0.0.1:{port}/")
    await gone.wait()


async def test_no_secret_in_any_error(upstream: Upstream) -> None:
    port = await upstream(saying(b"HTTP/1.1 500 secret\r\nX: secret\r\n\r\nsecret"))
    for headers, protocols in (
        ([], []),
        ([("Authorization", "Bearer secret\n")], []),
        ([("Authorization", "Bearer secret ☃")], []),
        ([], ["key.secret\n"]),
    ):
        with pytest.raises((DialFailed, DialRefused)) as caught:
            await dial(f"ws://127.0.0.1:{port}/secret?key=secret", headers, protocols)
        assert "secret" not in "".join(traceback.format_exception_only(caught.value))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_wss_is_verified(upstream: Upstream) -> None:
    async def answer(stream: trio.abc.Stream, head: bytes) -> None:
        await stream.send_all(switching(head) + b"\x81\x02hi\x88\x02\x03\xe8")
        while await stream.receive_some():
            pass

    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certified.load_cert_chain(CERTIFICATE)
    port = await upstream(answer, certified)
    authority = ssl.create_default_context(cafile=CERTIFICATE)
    with pytest.raises(DialFailed, match=r"TLS .*self.signed certificate"):
        await dial(f"wss://localhost:{port}/")
    with pytest.raises(DialFailed, match=r"TLS .*not valid for '127\.0\.0\.1'"):
        await dial(f"wss://127.0.0.1:{port}/", tls=authority)
    connection = await dial(f"wss://localhost:{port}/", tls=authority)
    assert await connection.receive() == b"hi"
    with pytest.raises(ConnectionLost):
        await connection.receive()
    assert ssl.create_default_context().minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_wss_to_something_that_speaks_no_tls(upstream: Upstream, nursery: trio.Nursery) -> None:
    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example ESMTP\r\n")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, babble, listeners)
    with pytest.raises(DialFailed, match="TLS with localhost"):
        await dial(f"wss://localhost:{listeners[0].socket.getsockname()[1]}/")


async def test_both_ends_of_this_transport_together(nursery: trio.Nursery) -> None:
    async def echo(exchange: Exchange) -> None:
        connection = await exchange.accept("realtime")
        assert await connection.receive() == b"x" * 2**20
        await connection.send(b"back")
        await connection.close(4000, "enough")

    listeners = await open_tcp("main", "127.0.0.1", 0)
    nursery.start_soon(serve, listeners, echo)
    connection = await dial(f"ws://127.0.0.1:{listeners[0].address[1]}/", (), ["realtime"])
    await connection.send(b"x" * 2**20)
    assert await connection.receive() == b"back"
    with pytest.raises(ConnectionLost) as caught:
        await connection.receive()
    assert caught.value.closing == Closing(4000, "enough", clean=True)
