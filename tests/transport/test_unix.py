"""Unix sockets: made with their permissions, told from what else lies there, removed by their maker alone."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from rtpipe.transport import unix
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.listening import open_unix
from rtpipe.transport.server import serve


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "s"  # short, as paths of sockets have to be


@contextmanager
def listening(path: Path, mode: int = 0o660, group: int | None = None) -> Iterator[unix.SocketFile]:
    made, file = unix.listen(path, mode, group)
    with made:
        yield file


def connect(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(str(path))
    except OSError:
        connected.close()
        raise
    return connected


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_permissions_are_those_asked_for_whatever_the_umask(path: Path, mode: int) -> None:
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            with listening(path, mode) as file:
                assert stat.S_IMODE(path.stat().st_mode) == mode
                assert os.listdir(path.parent) == ["s"]
            file.remove()
        finally:
            os.umask(before)


def test_nobody_can_connect_before_the_permissions_stand(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    chmod = Path.chmod

    def watched(self: Path, mode: int) -> None:
        try:
            connect(self).close()
        except OSError as error:
            seen.append(error.errno)
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", watched)
    with listening(path):
        connect(path).close()
    assert seen == [errno.ECONNREFUSED]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a socket to any group")
def test_the_group(path: Path) -> None:
    with listening(path, 0o660, 12345):
        assert path.stat().st_gid == 12345


def test_group_names() -> None:
    assert unix.group_id("root") == 0
    assert unix.group_id("1001") == 1001
    with pytest.raises(KeyError):
        unix.group_id("no-such-group")


def test_a_dead_socket_is_replaced(path: Path) -> None:
    with listening(path):
        pass
    assert path.is_socket()
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    with listening(path) as file:
        connect(path).close()
        file.remove()
        assert not path.exists()
        file.remove()


def test_a_socket_is_removed_by_its_maker_alone(path: Path) -> None:
    with listening(path) as first:
        path.unlink()
        with listening(path):
            first.remove()
            connect(path).close()


@pytest.mark.parametrize("backlog", [0, 5])
def test_a_live_socket_is_left_alone(path: Path, backlog: int) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(backlog)
        waiting = [connect(path)]  # with a backlog of 0, the queue is full
        before = path.stat().st_ino
        with pytest.raises(OSError) as caught:
            unix.listen(path, 0o660, None)
        assert caught.value.errno == errno.EADDRINUSE
        assert path.stat().st_ino == before
        assert os.listdir(path.parent) == ["s"]
        waiting.pop().close()


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "link", "link to a dead socket"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/nowhere")
        case _:
            with listening(path.with_name("t")):
                pass
            path.symlink_to("t")
    before = path.lstat()
    with pytest.raises(OSError) as caught:
        unix.listen(path, 0o660, None)
    assert caught.value.errno == errno.EEXIST
    assert path.lstat().st_ino == before.st_ino


def test_a_socket_that_cannot_get_its_permissions_is_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chown", refused)
    with pytest.raises(PermissionError):
        unix.listen(path, 0o660, 1)
    assert os.listdir(path.parent) == []


def test_what_the_system_says(path: Path) -> None:
    for place in (path.parent / "none" / "s", Path("/proc/s")):
        with pytest.raises(OSError):
            unix.listen(place, 0o660, None)


def test_the_longest_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s")
    for name in ("s", "s" * 20):
        inner = folder / ("d" * (unix.MAX_PATH_BYTES - len(os.fsencode(folder)) - len(name) - 2))
        inner.mkdir(exist_ok=True)
        path = inner / name
        assert len(os.fsencode(path)) == unix.MAX_PATH_BYTES
        with listening(path):
            connect(path).close()


async def test_peers_are_known_by_their_credentials(path: Path, nursery: trio.Nursery) -> None:
    seen: list[object] = []

    async def look(exchange: Exchange) -> None:
        peer = exchange.request.peer
        seen.append((peer.address, peer.port, peer.listener, peer.pid, peer.uid, peer.gid))
        await exchange.respond(200, b"")

    listener = open_unix("local", path, 0o600)
    assert listener.url == f"unix:{path}"
    scope = trio.CancelScope()
    over = trio.Event()

    async def run() -> None:
        with scope:
            await serve([listener], look)
        over.set()

    nursery.start_soon(run)
    with trio.fail_after(20):
        async with await trio.open_unix_socket(path) as client:
            await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.receive_some()).startswith(b"HTTP/1.1 200")
    assert seen == [(f"uid {os.getuid()}", None, "local", os.getpid(), os.getuid(), os.getgid())]
    scope.cancel()
    await over.wait()
    assert os.listdir(path.parent) == []


def test_two_that_start_at_once_leave_one_socket(path: Path) -> None:
    made: list[socket.socket] = []
    refused: list[int | None] = []

    def start() -> None:
        try:
            made.append(unix.listen(path, 0o660, None)[0])
        except OSError as error:
            refused.append(error.errno)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connect(path).close()
    assert os.listdir(path.parent) == ["s"]
    assert set(refused) <= {errno.EADDRINUSE}
    for each in made:
        each.close()
