"""The service manager: what it is told, sd_notify(3), and the sockets it passes, sd_listen_fds(3)."""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence

from rtpipe.api.errors import ConfigError

log = logging.getLogger("rtpipe.daemon")

Sockets = Mapping[str, Sequence[socket.socket]]
"""Listening sockets that whoever started us keeps, by the names it gave them."""

_FIRST = 3


def tell(**fields: str | int) -> None:
    """Tell the service manager, if there is one: ``tell(READY=1, STATUS="…")``."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    message = "\n".join(f"{key}={value}" for key, value in fields.items())
    if place.startswith("@"):
        place = f"\0{place[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as told:
            told.sendto(message.encode(), place)
    except OSError as exc:
        # It will act as if it had heard nothing, which is its business; ours goes on.
        log.warning("the service manager at $NOTIFY_SOCKET cannot be told: %s", exc)


def monotonic_usec() -> int:
    """The time that RELOADING=1 has to come with."""
    return time.monotonic_ns() // 1000


def passed_sockets() -> Sockets:
    """The sockets passed to this process; the next call finds none. Raises ``ConfigError``."""
    given = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()):
        return {}
    count = int(given["LISTEN_FDS"])
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else ["unknown"] * count
    if len(names) != count:
        raise ConfigError(f"LISTEN_FDNAMES names {len(names)} sockets, LISTEN_FDS says {count}")
    found: dict[str, list[socket.socket]] = {}
    for descriptor, name in zip(range(_FIRST, _FIRST + count), names, strict=True):
        os.set_inheritable(descriptor, False)
        found.setdefault(name, []).append(socket.socket(fileno=descriptor))
    return found
