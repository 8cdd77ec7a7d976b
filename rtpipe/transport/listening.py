"""Sockets that are listened at: opened, or taken over from whoever opened them."""

import errno
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import trio

from rtpipe.transport import unix
from rtpipe.transport.forwarding import Proxy


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listening socket and the name by which the operator knows it.

    `tls`: what comes through it is TLS by this context. `file`: the socket in the file system that goes with
    it. `proxy`: what stands in front of it. `is_passed`: somebody else made it, and keeps it when we are
    done.
    """

    name: str
    socket: trio.SocketListener
    tls: ssl.SSLContext | None = None
    file: unix.SocketFile | None = None
    proxy: Proxy | None = None
    is_passed: bool = False

    @property
    def is_unix(self) -> bool:
        """A Unix socket: the kernel knows who connects, and JSON lines are spoken."""
        return self.socket.socket.family == socket.AF_UNIX

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound: port 0 has become a real one. For TCP alone."""
        host, port, *_ = self.socket.socket.getsockname()
        return host, port

    @property
    def url(self) -> str:
        """Where it is, without a path: ``ws://127.0.0.1:8787``, ``wss://[::1]:8443``, ``unix:/run/x``."""
        if self.is_unix:
            return f"unix:{self.socket.socket.getsockname()}"
        host, port = self.address
        return f"{'ws' if self.tls is None else 'wss'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def aclose(self) -> None:
        """Listen no more; a socket file goes, if it is still ours."""
        if self.file is not None:
            self.file.remove()
        await self.socket.aclose()


async def open_tcp(
    name: str, host: str, port: int, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None
) -> list[Listener]:
    """Bind and listen; one listener for each address that `host` resolves to. Raises OSError."""
    made = await trio.open_tcp_listeners(port, host=host)
    return [Listener(name, socket, tls, proxy=proxy) for socket in made]


def open_unix(name: str, path: Path, mode: int, group: int | None = None) -> Listener:
    """Bind and listen at `path`, for those whom `mode` and `group` allow. Raises OSError as `unix.listen`."""
    made, file = unix.listen(path, mode, group)
    return Listener(name, trio.SocketListener(trio.socket.from_stdlib_socket(made)), file=file)


def take_over(
    name: str, made: socket.socket, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None
) -> Listener:
    """A socket that somebody else made and listens at. Raises OSError for one that cannot be served."""
    if made.type != socket.SOCK_STREAM or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(errno.EINVAL, "it is no stream socket that is listened at")
    if made.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise OSError(errno.EAFNOSUPPORT, "it is neither TCP nor a Unix socket")
    taken = trio.SocketListener(trio.socket.from_stdlib_socket(made))
    return Listener(name, taken, tls, proxy=proxy, is_passed=True)
