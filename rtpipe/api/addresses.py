"""Addresses that operators write down, to which secrets may go."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def http_url(url: str) -> SplitResult:
    """The parts of an ``https`` URL, or of an ``http`` one that stays on this machine.

    Raises ValueError with a sentence for the operator, in which the URL is not repeated: there may be a
    password in it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url: it is none; write https://host/path") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: no user name or password in it")
    if parts.scheme not in ("https", "http") or not host or not url.isascii() or not url.isprintable():
        raise ValueError("url: write https://host/path")
    if " " in url or parts.fragment:
        raise ValueError("url: no spaces or fragments")
    if parts.scheme == "http" and not is_this_machine(host):
        raise ValueError("url: http is for this machine alone: write https")
    return parts


def is_this_machine(host: str | None) -> bool:
    """Whether what is sent there crosses no network."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
