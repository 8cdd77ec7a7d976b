"""Unix sockets to listen at: made safely, told from strangers' files, taken away by their maker only."""

import errno
import fcntl
import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

MAX_PATH_BYTES: Final = 107  # the system's limit
_BACKLOG: Final = 4096  # the system cuts it to its own limit
_CREDENTIALS: Final = struct.Struct("=iII")


class Credentials(NamedTuple):
    """Process, user and group (the effective ones) that connected, as the kernel knows them."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A socket in the file system, known by its inode."""

    path: Path
    device: int
    inode: int

    def remove(self) -> None:
        """Take it away, unless something else has taken its place.

        For as long as the socket is open: until then its inode cannot be another file's.
        """
        with suppress(OSError):
            if _identity(self.path) == (self.device, self.inode):
                self.path.unlink()


def listen(path: Path, mode: int, group: int | None) -> tuple[socket.socket, SocketFile]:
    """A socket that listens at `path`; until its permissions stand, whoever connects is refused.

    Raises OSError: EADDRINUSE when somebody listens there already, EEXIST when there is something that is no
    socket, and what the system says.
    """
    with _directory_to_ourselves(path.parent):
        return _listen(path, mode, group)


@contextmanager
def _directory_to_ourselves(directory: Path) -> Iterator[None]:
    """Two that start at once must not each take the other's socket, bound and not yet listened at, for a
    dead one. The lock is on the directory itself, for a moment, and leaves nothing behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _listen(path: Path, mode: int, group: int | None) -> tuple[socket.socket, SocketFile]:
    _clear(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(os.fspath(path))
        file = SocketFile(path, *_identity(path))
        try:
            if group is not None:
                os.chown(path, -1, group)
            path.chmod(mode)
            made.listen(_BACKLOG)
        except BaseException:
            file.remove()
            raise
    except BaseException:
        made.close()
        raise
    return made, file


def group_id(name: str) -> int:
    """The number of a group, given by name or number. Raises KeyError for a name nobody has."""
    return int(name) if name.isascii() and name.isdecimal() else grp.getgrnam(name).gr_gid


class HasOptions(Protocol):
    """What a standard socket and trio's have in common here."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def credentials(connected: HasOptions) -> Credentials:
    """Who connected to a Unix socket. Raises OSError."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(raw))


def _clear(path: Path) -> None:
    """Take a socket away at which nobody listens any more. Raises OSError for anything else that is there."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "something that is no socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a full queue is somebody's, too
            probe.connect(os.fspath(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except BlockingIOError:
        pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
