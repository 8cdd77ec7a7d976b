"""Doors opened as the configuration says, and the files that they and the upstreams need."""

import errno
import os
import ssl
from pathlib import Path

from rtpipe.api.errors import ConfigError
from rtpipe.daemon.addresses import parse_mode
from rtpipe.daemon.config import Admin, Listen
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.toml_positions import Path as KeyPath
from rtpipe.daemon.upstreams import upstream_tls
from rtpipe.transport.server import Listener, open_tcp, open_unix
from rtpipe.transport.tls import server_context
from rtpipe.transport.unix import group_id

_HINTS = {
    errno.EADDRINUSE: "Address already in use: choose another address",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose another address",
    errno.EEXIST: "something that is no socket is there: move it away, or choose another path",
    errno.ENOENT: "its directory does not exist: make it",
    errno.EACCES: "this user may not do that",
    errno.EPERM: "this user may not do that: the group must be one of its own",
}


async def open_all(loaded: Loaded) -> tuple[list[Listener], list[Listener]]:
    """Bind and listen everywhere: the doors, and the admin socket if there is to be one.

    Raises ``ConfigError`` for the first that does not open.
    """
    doors: list[Listener] = []
    admin: list[Listener] = []
    try:
        for i, door in enumerate(loaded.config.listen):
            doors += await _open(loaded, i, door)
        if (path := loaded.config.admin.socket) is not None:
            admin.append(_open_admin(loaded, loaded.config.admin, path))
    except BaseException:
        for listener in doors:
            await listener.aclose()
        raise
    return doors, admin


def _open_admin(loaded: Loaded, admin: Admin, path: str) -> Listener:
    group = _group(loaded, ("admin", "group"), admin.group)
    try:
        return open_unix("admin", Path(path), admin.mode, group)
    except OSError as exc:
        raise _not_opened(loaded, ("admin", "socket"), path, exc) from None


async def _open(loaded: Loaded, i: int, door: Listen) -> list[Listener]:
    tls = _server_tls(loaded, i, door)
    group = _door_group(loaded, i, door)
    try:
        if door.path is not None:
            return [open_unix(door.name, door.path, parse_mode(door.mode), group)]
        return await open_tcp(door.name, door.host, door.port, tls)
    except OSError as exc:
        raise _not_opened(loaded, ("listen", i, "address"), door.address, exc) from None


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


def _server_tls(loaded: Loaded, i: int, door: Listen) -> ssl.SSLContext | None:
    if door.tls is None:
        return None
    try:
        return server_context(Path(door.tls.certificate), Path(door.tls.key))
    except (OSError, ValueError) as exc:
        raise loaded.sources.error(("listen", i, "tls"), _why(exc)) from None


def _door_group(loaded: Loaded, i: int, door: Listen) -> int | None:
    return None if door.path is None else _group(loaded, ("listen", i, "group"), door.group)


def _group(loaded: Loaded, path: KeyPath, name: str | None) -> int | None:
    try:
        return None if name is None else group_id(name)
    except KeyError:
        raise loaded.sources.error(path, f"there is no group {name}") from None


def _why(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return f"{os.fsdecode(exc.filename or 'the file')} cannot be read ({exc.strerror})"
    return str(exc)
