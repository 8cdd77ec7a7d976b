"""Doors opened as the configuration says, and the files that they and the upstreams need."""

import errno
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtpipe.api.errors import ConfigError
from rtpipe.daemon.addresses import PassedName, parse_mode, parse_network
from rtpipe.daemon.config import Admin, Listen
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.service import Sockets
from rtpipe.daemon.toml_positions import Path as KeyPath
from rtpipe.daemon.upstreams import upstream_tls
from rtpipe.transport.contexts import server_context
from rtpipe.transport.forwarding import Proxy
from rtpipe.transport.listening import Listener, open_tcp, open_unix, take_over
from rtpipe.transport.unix import group_id

log = logging.getLogger("rtpipe.daemon")

_HINTS = {
    errno.EADDRINUSE: "Address already in use: choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another address",
    errno.EEXIST: "something that is no socket is there: move it away, or choose another path",
    errno.ENOENT: "its directory does not exist: make it",
    errno.EACCES: "this user may not do that",
    errno.EPERM: "this user may not do that: the group must be one of its own",
}


async def open_all(loaded: Loaded, sockets: Sockets) -> tuple[list[Listener], list[Listener]]:
    """Bind and listen everywhere: the doors, and the admin socket if there is to be one. *sockets* are those
    that were passed to us.

    Raises ``ConfigError`` for the first that does not open.
    """
    doors: list[Listener] = []
    admin: list[Listener] = []
    try:
        for i, door in enumerate(loaded.config.listen):
            doors += await _open(loaded, i, door, sockets)
        if (path := loaded.config.admin.socket) is not None:
            admin.append(_open_admin(loaded, loaded.config.admin, path))
    except BaseException:
        for listener in doors:
            await listener.aclose()
        raise
    for name in sockets.keys() - {listener.place for listener in loaded.config.listen}:
        log.warning("no listener has the address fd:%s: sockets of that name were passed for nothing", name)
    return doors, admin


def _open_admin(loaded: Loaded, admin: Admin, path: str) -> Listener:
    group = _group(loaded, ("admin", "group"), admin.group)
    try:
        return open_unix("admin", Path(path), admin.mode, group)
    except OSError as exc:
        raise _not_opened(loaded, ("admin", "socket"), path, exc) from None


async def _open(loaded: Loaded, i: int, door: Listen, sockets: Sockets) -> list[Listener]:
    tls = _server_tls(loaded, i, door)
    group = _door_group(loaded, i, door)
    proxy = Proxy(door.proxy, [parse_network(each) for each in door.trusted]) if door.proxy else None
    try:
        match door.place:
            case PassedName() as name:
                return _take_over(loaded, i, door, sockets.get(name, ()), tls, proxy)
            case Path() as path:
                return [open_unix(door.name, path, parse_mode(door.mode), group)]
            case host, port:
                return await open_tcp(door.name, host, port, tls, proxy)
    except OSError as exc:
        raise _not_opened(loaded, ("listen", i, "address"), door.address, exc) from None


def _take_over(
    loaded: Loaded,
    i: int,
    door: Listen,
    sockets: Sequence[socket.socket],
    tls: ssl.SSLContext | None,
    proxy: Proxy | None,
) -> list[Listener]:
    if not sockets:
        what = f"no socket was passed by the name {door.place} (is the socket unit started?)"
        raise loaded.sources.error(("listen", i, "address"), what)
    if tls is not None and any(each.family == socket.AF_UNIX for each in sockets):
        what = "a Unix socket has this name, and a Unix socket has no TLS"
        raise loaded.sources.error(("listen", i, "tls"), what)
    return [take_over(door.name, each, tls, proxy) for each in sockets]


def _not_opened(loaded: Loaded, path: KeyPath, address: str, exc: OSError) -> ConfigError:
    why = _HINTS.get(exc.errno or 0) or exc.strerror or str(exc)
    return loaded.sources.error(path, f"cannot listen at {address}: {why}")


def check_files(loaded: Loaded, *, upstreams: bool = True) -> None:
    """See that certificates, keys and groups can be used. Raises ``ConfigError`` for the first."""
    for i, door in enumerate(loaded.config.listen):
        _server_tls(loaded, i, door)
        _door_group(loaded, i, door)
    _group(loaded, ("admin", "group"), loaded.config.admin.group)
    for i, upstream in enumerate(loaded.config.upstream if upstreams else ()):
        try:
            upstream_tls(upstream)
        except (OSError, ValueError) as exc:
            raise loaded.sources.error(("upstream", i, "ca"), _why(exc)) from None


def check_certificates(loaded: Loaded, doors: Sequence[Listener]) -> None:
    """See that what the running *doors* show can still be used. Raises ``ConfigError`` for the first."""
    for listener, i, door in _with_tls(loaded, doors):
        assert listener.tls is not None
        _server_tls(loaded, i, door)


def renew_certificates(loaded: Loaded, doors: Sequence[Listener]) -> None:
    """Show from the next handshake on what stands in the files now. Living connections keep theirs.

    *loaded* is what the doors were opened with.
    """
    for listener, i, door in _with_tls(loaded, doors):
        assert listener.tls is not None
        assert door.tls is not None
        try:
            listener.tls.load_cert_chain(door.tls.certificate, door.tls.key)
        except (OSError, ValueError) as exc:  # checked a moment ago: replaced in between
            raise loaded.sources.error(("listen", i, "tls"), _why(exc)) from None


def _with_tls(loaded: Loaded, doors: Sequence[Listener]) -> Iterator[tuple[Listener, int, Listen]]:
    for listener in doors:
        for i, door in enumerate(loaded.config.listen):
            if listener.tls is not None and door.name == listener.name:
                yield listener, i, door


def _server_tls(loaded: Loaded, i: int, door: Listen) -> ssl.SSLContext | None:
    if door.tls is None:
        return None
    try:
        ours = door.tls
        client_ca = None if ours.client_ca is None else Path(ours.client_ca)
        return server_context(Path(ours.certificate), Path(ours.key), client_ca)
    except (OSError, ValueError) as exc:
        raise loaded.sources.error(("listen", i, "tls"), _why(exc)) from None


def _door_group(loaded: Loaded, i: int, door: Listen) -> int | None:
    return None if not isinstance(door.place, Path) else _group(loaded, ("listen", i, "group"), door.group)


def _group(loaded: Loaded, path: KeyPath, name: str | None) -> int | None:
    try:
        return None if name is None else group_id(name)
    except KeyError:
        raise loaded.sources.error(path, f"there is no group {name}") from None


def _why(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return f"{os.fsdecode(exc.filename or 'the file')} cannot be read ({exc.strerror})"
    return str(exc)
