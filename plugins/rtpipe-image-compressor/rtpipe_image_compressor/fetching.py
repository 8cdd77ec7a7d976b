"""Images from hosts that the operator allows, and from no address inside."""

import ipaddress
import socket
import ssl
from collections.abc import Sequence

import httpx2
import trio

from rtpipe_image_compressor.contents import check_size
from rtpipe_image_compressor.refusal import BadImage

_HTTPS = 443
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Fetcher:
    """Fetches by https from the hosts of an allow-list."""

    def __init__(self, allowed: Sequence[str], max_bytes: int) -> None:
        self._allowed = {host if ":" in host else f"{host}:{_HTTPS}" for host in allowed}
        self._max_bytes = max_bytes
        self._tls = ssl.create_default_context()

    def check(self, url: str) -> httpx2.URL:
        """The URL, if it may be fetched. Raises ``BadImage``."""
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, UnicodeError):
            raise _not_allowed() from None
        place = f"{parsed.host.lower()}:{parsed.port or _HTTPS}"
        if parsed.scheme != "https" or parsed.userinfo or place not in self._allowed:
            raise _not_allowed()
        return parsed

    async def fetch(self, url: httpx2.URL) -> bytes:
        """What is there. The caller sees to the time. Raises ``BadImage``."""
        address = await _public_address(url.host, url.port or _HTTPS)
        # To the address that was checked, whatever the name means a moment later; by the name's certificate.
        request = httpx2.Request(
            "GET",
            url.copy_with(host=address),
            headers={"host": url.netloc.decode("ascii"), "accept": "image/*", "accept-encoding": "identity"},
            extensions={"sni_hostname": url.host},
        )
        try:
            async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client:
                response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    return await self._body(response)
                finally:
                    with trio.CancelScope(shield=True), trio.move_on_after(1):
                        await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            raise _failed(type(exc).__name__) from None

    async def _body(self, response: httpx2.Response) -> bytes:
        if response.status_code != 200:
            raise _failed(f"its host answered {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _failed("its host answered with compressed content")
        body = bytearray()
        # By cancellation: left in the middle, the library's generators would be closed by nobody.
        with trio.CancelScope() as enough:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_bytes:
                    enough.cancel()
        check_size(len(body), self._max_bytes)
        return bytes(body)


async def _public_address(host: str, port: int) -> str:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _failed("its host is not known") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise _not_allowed()
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is somewhere on the internet, and not this machine, its network, or multicast."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # one with a zone is of a link
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


def _not_allowed() -> BadImage:
    message = "Images are not fetched from this URL: send the image as data:image/…;base64,…"
    return BadImage("image_url_not_allowed", message)


def _failed(why: str) -> BadImage:
    return BadImage("image_fetch_failed", f"The image could not be fetched: {why}.")
