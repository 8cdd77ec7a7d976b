"""Tunnels through a proxy: HTTP CONNECT and SOCKS5. No error text holds a user name or a password.

What is inside a tunnel, TLS first of all, is between us and whoever is at its end. The name of that end is
resolved by the proxy.
"""

import base64
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import h11
import trio
from python_socks import ProxyError, ProxyType
from python_socks.async_.trio import Proxy as SocksProxy

from rtpipe.transport.http import MAX_HEAD_BYTES

_PORTS: Final = {"http": 80, "socks5": 1080}
_READ_BYTES: Final = 16 * 2**10


class ProxyFailed(Exception):
    """The proxy made no tunnel; the text says why."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy is, what it speaks, and the (user, password) it wants, if any."""

    kind: Literal["http", "socks5"]
    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)


def parse_proxy(text: str) -> Proxy:
    """``http://user:password@host:port``, likewise ``socks5://``. Raises ``ValueError`` with a sentence."""
    what = "expected http://host:port or socks5://host:port"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(what) from None
    kind: Literal["http", "socks5"] = "http" if parts.scheme == "http" else "socks5"
    if parts.scheme not in ("http", "socks5", "socks5h") or not host or not text.isascii():
        raise ValueError(what)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(what)
    login = None
    if parts.username is not None:
        login = (unquote(parts.username), unquote(parts.password or ""))
    return Proxy(kind, host, port or _PORTS[kind], login)


def proxy_of_environment(url: str) -> Proxy | None:
    """What HTTPS_PROXY (for ``ws://`` HTTP_PROXY), ALL_PROXY and NO_PROXY say about a WebSocket URL.

    Raises ``ValueError`` with a sentence, not showing the value.
    """
    parts = urlsplit(url)
    proxies = getproxies()  # of the environment, here on Linux
    text = proxies.get("https" if parts.scheme == "wss" else "http") or proxies.get("all")
    if not text or proxy_bypass(parts.netloc):
        return None
    return parse_proxy(text if "://" in text else f"http://{text}")


async def open_tunnel(proxy: Proxy, host: str, port: int) -> trio.SocketStream:
    """A stream to *host* through *proxy*; the caller sets the deadline. Raises ProxyFailed and OSError."""
    if proxy.kind == "socks5":
        return await _through_socks(proxy, host, port)
    stream = await trio.open_tcp_stream(proxy.host, proxy.port)
    try:
        await _ask_to_connect(stream, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _through_socks(proxy: Proxy, host: str, port: int) -> trio.SocketStream:
    user, password = proxy.login or (None, None)
    socks = SocksProxy(ProxyType.SOCKS5, proxy.host, proxy.port, user, password, rdns=True)
    try:
        return trio.SocketStream(await socks.connect(host, port))
    except ProxyError as error:
        raise ProxyFailed(str(error)) from None
    except (ValueError, AssertionError):  # the library's own words may hold them
        raise ProxyFailed("the proxy speaks no SOCKS5, or cannot carry the login or the name") from None


async def _ask_to_connect(stream: trio.SocketStream, proxy: Proxy, place: str) -> None:
    headers = [("Host", place)]
    if proxy.login is not None:
        token = base64.b64encode(":".join(proxy.login).encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {token}"))
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        request = parser.send(h11.Request(method="CONNECT", target=place, headers=headers)) or b""
        await stream.send_all(request + (parser.send(h11.EndOfMessage()) or b""))
        while not isinstance(event := parser.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                parser.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
    except (h11.ProtocolError, trio.BrokenResourceError):
        raise ProxyFailed("the proxy broke off or speaks no HTTP") from None
    if not 200 <= event.status_code < 300:
        raise ProxyFailed(f"the proxy answered {event.status_code}")
    if parser.trailing_data[0]:
        raise ProxyFailed("the proxy spoke out of turn")
