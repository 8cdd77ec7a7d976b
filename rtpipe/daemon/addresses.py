"""Addresses as an operator writes them, judged with a sentence for what is wrong."""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

UNIX = "unix:"
PASSED = "fd:"
_MODE = re.compile(r"0?[0-7]{3}")
_PASSED_NAME = re.compile(r"[A-Za-z0-9._@-]{1,255}")
_UNIX_PATH_BYTES = 107


class PassedName(str):
    """The name of sockets that the service manager passes."""

    __slots__ = ()


def parse_address(address: str) -> tuple[str, int] | Path | PassedName:
    """``"[::1]:8787"`` to ``("::1", 8787)``, ``"unix:/run/x"`` to ``Path("/run/x")``, ``"fd:x"`` to a name.

    Raises ``ValueError`` with a sentence for the operator.
    """
    if address.startswith(UNIX):
        return parse_socket_path(address.removeprefix(UNIX), UNIX)
    if address.startswith(PASSED):
        if not _PASSED_NAME.fullmatch(name := address.removeprefix(PASSED)):
            raise ValueError("expected fd: and the FileDescriptorName= of a socket unit, such as fd:realtime")
        return PassedName(name)
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        raise ValueError(
            "expected host:port with a port from 0 to 65535, such as 127.0.0.1:8787, or unix:/path"
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("write an IPv6 address in brackets, such as [::1]:8787")
    if not host or not host.isprintable() or any(c in "[]/@ " for c in host):
        raise ValueError("names no host: 127.0.0.1:8787 is this machine, 0.0.0.0:8787 every interface")
    return host, int(port)


def parse_socket_path(text: str, prefix: str = "") -> Path:
    """Where a Unix socket can be, as written after *prefix*. Raises ``ValueError`` with a sentence."""
    path = Path(text)
    if not path.is_absolute() or text.endswith("/") or ".." in path.parts or not text.isprintable():
        before = f"{prefix} and " if prefix else ""
        raise ValueError(f"expected {before}an absolute path, such as {prefix}/run/rtpipe/rtpipe.sock")
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket may have {_UNIX_PATH_BYTES} bytes")
    return path


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """``"10.0.0.0/8"``, or one address. Raises ``ValueError`` with a sentence."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("expected an address or a network, such as 10.0.0.7 or 10.0.0.0/8") from None


def parse_mode(text: str) -> int:
    """``"0660"`` to ``0o660``. Raises ``ValueError`` with a sentence."""
    if not _MODE.fullmatch(text):
        raise ValueError('expected permissions as octal digits, such as "0660"')
    return int(text, 8)
