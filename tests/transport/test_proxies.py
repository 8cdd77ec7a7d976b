"""Tunnels: against proxies made here, which note what they were told."""

from __future__ import annotations

import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from rtpipe.transport.connection import ConnectionLost
from rtpipe.transport.dialer import DialFailed, DialTimeout, dial
from rtpipe.transport.proxies import Proxy, parse_proxy, proxy_of_environment
from tests.transport.test_dialer import Upstream, saying, switching, upstream  # noqa: F401 - a fixture

CERTIFICATE = Path(__file__).with_name("localhost.pem")
LOGIN = ("marked-user", "marked: pass%")


@asynccontextmanager
async def served(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def splice(client: trio.SocketStream, port: int) -> None:
    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    other = await trio.open_tcp_stream("127.0.0.1", port)
    async with other, trio.open_nursery() as nursery:
        nursery.start_soon(copy, client, other)
        nursery.start_soon(copy, other, client)


async def take(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive_some(count - len(data))
    return data


def http_proxy(
    port: int, heads: list[str], answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n"
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """CONNECT, whatever the name, to the port here; answered a byte at a time."""

    async def handler(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(1)
        heads.append(head.decode())
        for byte in answer:
            await stream.send_all(bytes([byte]))
        if answer.startswith(b"HTTP/1.1 200"):
            await splice(stream, port)

    return handler


def socks_proxy(
    port: int, asked: list[tuple[str, ...]], login: tuple[str, str] | None
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """SOCKS5, whatever the name, to the port here."""

    async def handler(stream: trio.SocketStream) -> None:
        _, count = await take(stream, 2)
        offered = await take(stream, count)
        method = 2 if login else 0
        await stream.send_all(bytes([5, method if method in offered else 255]))
        told: tuple[str, ...] = ()
        if login:
            user = await take(stream, (await take(stream, 2))[1])
            password = await take(stream, (await take(stream, 1))[0])
            told = (user.decode(), password.decode())
            await stream.send_all(bytes([1, told != login]))
        *_, kind = await take(stream, 4)
        name = await take(stream, (await take(stream, 1))[0] if kind == 3 else 4)
        asked.append((name.decode() if kind == 3 else name.hex(), *told))
        await take(stream, 2)
        await stream.send_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await splice(stream, port)

    return handler


async def hello(stream: trio.abc.Stream, head: bytes) -> None:
    await stream.send_all(switching(head) + b"\x81\x02hi\x88\x02\x03\xe8")
    while await stream.receive_some():
        pass


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("login", [None, LOGIN], ids=["no login", "login"])
async def test_tls_in_a_tunnel_is_with_the_upstream(
    upstream: Upstream,  # noqa: F811
    kind: str,
    login: tuple[str, str] | None,
) -> None:
    """The name is the proxy's to resolve, and the certificate the upstream's to show."""
    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certified.load_cert_chain(CERTIFICATE)
    port = await upstream(hello, certified)
    authority = ssl.create_default_context(cafile=CERTIFICATE)
    told: list[str] = []
    asked: list[tuple[str, ...]] = []
    handler = http_proxy(port, told) if kind == "http" else socks_proxy(port, asked, login)
    async with served(handler) as place:
        proxy = Proxy(kind, "127.0.0.1", place, login)  # type: ignore[arg-type]
        connection = await dial("wss://localhost:1/?key=marked", tls=authority, proxy=proxy)
        assert await connection.receive() == b"hi"
        with pytest.raises(ConnectionLost):
            await connection.receive()
        with pytest.raises(DialFailed, match=r"TLS .*not valid for 'elsewhere\.invalid'"):
            await dial("wss://elsewhere.invalid:1/", tls=authority, proxy=proxy)
    if kind == "socks5":
        assert asked == [(name, *(login or ())) for name in ("localhost", "elsewhere.invalid")]
        return
    line, *fields = told[0].split("\r\n")
    assert line == "CONNECT localhost:1 HTTP/1.1"
    assert "Host: localhost:1" in fields
    basic = "Proxy-Authorization: Basic bWFya2VkLXVzZXI6bWFya2VkOiBwYXNzJQ=="
    assert (basic in fields) is (login is not None)
    assert "marked" not in told[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Who\r\nContent-Length: 6\r\n\r\nmarked", "the proxy answered 407"),
        (b"HTTP/1.1 502 marked\r\n\r\n", "the proxy answered 502"),
        (b"HTTP/1.1 200 OK\r\n\r\nmarked", "out of turn"),
        (b"\x05\xff", "speaks no HTTP"),
        (b"", "broke off"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**17, "speaks no HTTP"),
    ],
    ids=["407", "502", "out of turn", "SOCKS", "end", "endless"],
)
async def test_an_http_proxy_that_makes_no_tunnel(answer: bytes, says: str) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        try:
            await stream.send_all(answer)
            await stream.send_eof()
        except trio.BrokenResourceError:
            return

    async with served(handler) as place:
        with pytest.raises(DialFailed, match=says) as caught:
            await dial("wss://localhost:1/", proxy=Proxy("http", "127.0.0.1", place, LOGIN))
    assert f"through the proxy 127.0.0.1:{place}" in str(caught.value)
    assert "marked" not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize(
    ("answer", "login"),
    [
        (b"\x05\xff", LOGIN),
        (b"\x05\x02\x01\x01", LOGIN),
        (b"\x05\x00\x05\x02\x00\x01", LOGIN),
        (b"HTTP/1.1 400 No\r\n\r\n", LOGIN),
        (b"\x05", LOGIN),
        (b"", LOGIN),
        (b"\x05\x02", ("marked", "x" * 256)),
        (b"\x05\x02", ("marked", "ünïcode")),
    ],
    ids=["no method", "wrong login", "not allowed", "HTTP", "cut", "end", "long login", "odd login"],
)
async def test_a_socks_proxy_that_makes_no_tunnel(answer: bytes, login: tuple[str, str]) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(answer)
        await stream.send_eof()
        while await stream.receive_some():
            pass

    async with served(handler) as place:
        with pytest.raises(DialFailed, match="through the proxy") as caught:
            await dial("wss://localhost:1/", proxy=Proxy("socks5", "127.0.0.1", place, login))
    assert "marked" not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_that_hangs_is_given_up_in_time(autojump_clock: MockClock, kind: str) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async with served(handler) as place:
        with pytest.raises(DialTimeout, match="localhost:1 did not answer within 5 s"):
            await dial("wss://localhost:1/", proxy=Proxy(kind, "127.0.0.1", place), timeout_s=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_no_proxy_there(kind: str) -> None:
    with pytest.raises(DialFailed, match=r"through the proxy 127\.0\.0\.1:9"):
        await dial("wss://localhost:1/", proxy=Proxy(kind, "127.0.0.1", 9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("http://proxy.example/", Proxy("http", "proxy.example", 80)),
        ("socks5://[::1]", Proxy("socks5", "::1", 1080)),
        ("socks5h://p:1", Proxy("socks5", "p", 1)),
        ("http://u%40x:p%3Aw@p:1", Proxy("http", "p", 1, ("u@x", "p:w"))),
        ("http://u@p:1", Proxy("http", "p", 1, ("u", ""))),
    ],
)
def test_how_proxies_are_written(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy
    assert "p:w" not in repr(proxy)


@pytest.mark.parametrize(
    "text", ["https://p:1", "p:3128", "http://", "http://p:x", "socks4://p:1", "http://p/a"]
)
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match="expected http://host:port or socks5://host:port"):
        parse_proxy(text)


@pytest.mark.parametrize(
    ("variables", "url", "host"),
    [
        ({}, "wss://up.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "wss://up.example/", "p"),
        ({"https_proxy": "p:1"}, "wss://up.example/", "p"),
        ({"HTTPS_PROXY": "http://p:1"}, "ws://up.example/", None),
        ({"http_proxy": "http://p:1"}, "ws://up.example/", "p"),
        ({"ALL_PROXY": "socks5://p:1"}, "wss://up.example/", "p"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other, .example"}, "wss://up.example:8443/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other"}, "wss://up.example/", "p"),
    ],
)
def test_proxies_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, host: str | None
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_of_environment(url)
    assert (found and found.host) == host
