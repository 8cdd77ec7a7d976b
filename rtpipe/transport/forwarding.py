"""Who really called, where a balancer stands in front: the PROXY protocol and HTTP's forwarding headers.

Only what a trusted balancer says is believed; others are who they are.
"""

import ipaddress
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import trio

from rtpipe.transport.http import Headers, RequestRefused

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# The PROXY protocol, version 2 (haproxy, proxy-protocol.txt, section 2.2).
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = struct.Struct(">12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_LONGEST: Final = 4096
# A Forwarded header (RFC 7239, section 4), whole: in what is not exactly one, a caller may have left a
# quotation open that swallows what the balancer appended.
_PAIR: Final = r'[^\s,;="]+=(?:"(?:[^"\\]|\\.)*"|[^\s,;="]*)'
_ELEMENT: Final = rf"[ \t]*(?:{_PAIR})?(?:[ \t]*;[ \t]*(?:{_PAIR})?)*[ \t]*"
_FORWARDED: Final = re.compile(rf"{_ELEMENT}(?:,{_ELEMENT})*")
_ELEMENTS: Final = re.compile(rf"(?:^|,)({_ELEMENT})")
_FOR: Final = re.compile(r'(?i)(?:^|;)\s*for=(?:"((?:[^"\\]|\\.)*)"|([^\s,;="]*))')
_NODE: Final = re.compile(
    r"\[(?P<six>[^\]]+)\](?::\S+)?|(?P<four>\d+(?:\.\d+){3})(?::\S+)?|(?P<bare>[0-9a-fA-F:.]+)"
)


class BadProxyHeader(Exception):
    """A trusted balancer did not begin with the header that it has to begin with."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """What stands in front of a listener. `kind` v2: each connection begins with a PROXY header of version 2;
    forwarded: each request says in Forwarded or X-Forwarded-For whom it is from."""

    kind: Literal["v2", "forwarded"]
    trusted: Sequence[Network]

    def trusts(self, address: str) -> bool:
        """Whether what comes from there is believed."""
        found = parse_ip(address)
        return found is not None and any(found in network for network in self.trusted)

    def caller(self, address: str, headers: Headers) -> str:
        """Whose request it is that came from `address`: right to left, the first whom nobody trusts.

        Raises RequestRefused when both headers are there, since of two a caller may have written one, and for
        a Forwarded that is none.
        """
        forwarded, x_forwarded = headers.all("forwarded"), headers.all("x-forwarded-for")
        if forwarded and x_forwarded:
            message = "A request may have one of Forwarded and X-Forwarded-For."
            raise RequestRefused(400, "ambiguous_address", message)
        hops = _hops(forwarded) if forwarded else [hop.strip() for hop in ",".join(x_forwarded).split(",")]
        for hop in reversed(hops):
            if not self.trusts(address):
                break
            if (found := _node(hop)) is None:
                break  # hidden, or no address: as far as we know it was the one before
            address = found
        return address


async def read_proxy_header(stream: trio.abc.ReceiveStream) -> tuple[str, int] | None:
    """Read a header of version 2 and nothing behind it: an address and a port. None: the balancer speaks for
    itself, or for something that has no address. Raises BadProxyHeader. The caller sets the deadline."""
    signature, command, family, length = _FIXED.unpack(await _exactly(stream, _FIXED.size))
    if signature != _SIGNATURE or command not in (_LOCAL, _PROXY) or length > _LONGEST:
        raise BadProxyHeader("no PROXY header of version 2 at the beginning")
    rest = await _exactly(stream, length)
    if command == _LOCAL:
        return None
    try:
        if family == _TCP4:
            return str(ipaddress.IPv4Address(rest[:4])), int.from_bytes(rest[8:10], "big")
        if family == _TCP6:
            return _plain(ipaddress.IPv6Address(rest[:16])), int.from_bytes(rest[32:34], "big")
    except ipaddress.AddressValueError:
        raise BadProxyHeader("a PROXY header too short for its addresses") from None
    return None


def parse_ip(text: str) -> IPAddress | None:
    """An IP address; that of IPv4 where IPv6 only wraps it, as a socket for both does."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped) or found


def _plain(address: ipaddress.IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


def _hops(values: Sequence[str]) -> list[str]:
    """What the `for` parameters of Forwarded headers say, in order; empty where one says nothing."""
    if not all(_FORWARDED.fullmatch(value) for value in values):
        raise RequestRefused(400, "bad_forwarded", "The Forwarded header is not as RFC 7239 has it.")
    elements = [element for value in values for element in _ELEMENTS.findall(value)]
    return [_unquoted(_FOR.search(element)) for element in elements]


def _unquoted(found: re.Match[str] | None) -> str:
    if found is None:
        return ""
    return found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1])


def _node(text: str) -> str | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` or `2001:db8::1`."""
    match = _NODE.fullmatch(text)
    address = parse_ip(match["six"] or match["four"] or match["bare"]) if match else None
    return None if address is None else str(address)


async def _exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise BadProxyHeader("the connection ended before the PROXY header did")
        data += more
    return data
