"""Unix sockets as doors of the daemon."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import tempfile
from functools import partial
from pathlib import Path

import openai
import pytest
import trio

from rtpipe.cli.main import main
from tests.daemon.kit import KEY, failed, running, started
from tests.daemon.openai_client import turns
from tests.daemon.wire import WAIT_S, Head, WebSocket, read_head, upgrade

BASE_URL = "http://localhost/v1"
PEER = f'[[plugins.auth.peers]]\nid = "local"\nuid = {os.getuid()}\nlabels = {{ site = "here" }}\n'
RUN = ("--sim", "--sim-pace", "0")


@pytest.fixture
def place():
    """Where the socket is: in a folder of its own, to which everybody comes through."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # tmp_path is closed to others
        Path(folder).chmod(0o755)
        yield Path(folder) / "rtpipe.sock"


@pytest.fixture
def unix(place, tmp_path, text):
    """Write a configuration with one listener at *place*, and return its path."""

    def write(listen="", more="", **kwargs):
        path = tmp_path / "rtpipe.toml"
        whole = text(listen=listen, more=more, **kwargs)
        path.write_text(whole.replace('"127.0.0.1:0"', f'"unix:{place}"'))
        return path

    return write


async def knock(place, headers=()):
    stream = await trio.open_unix_socket(place)
    await stream.send_all(upgrade("/v1/realtime", headers))
    head = await read_head(stream)
    if head.status == 101:
        return WebSocket(stream, head, client=True)
    with trio.fail_after(WAIT_S):
        while more := await stream.receive_some():
            head.rest += more
    await stream.aclose()
    return head


async def test_openai_over_a_unix_socket(unix, place):
    async with running(unix(), *RUN) as process:
        assert process.out.startswith(f"rtpipe: ready at unix:{place} with chain")
        text, spoken = await turns(BASE_URL, KEY, {"unix": True, "path": str(place)})
        assert text
        assert spoken > 10_000
    assert not place.exists()


async def test_a_peer_needs_no_key_but_a_wrong_one_is_wrong(unix, place):
    options = {"unix": True, "path": str(place)}
    async with running(unix(more=PEER), *RUN) as process:
        omit = {"Authorization": openai.Omit()}
        text, _ = await turns(BASE_URL, "unused", options, default_headers=omit)
        assert text
        await process.said("opened: principal local")
        answer = await knock(place, [("Authorization", "Bearer wrong")])
        assert isinstance(answer, Head)
        assert answer.error["code"] == "invalid_api_key"
        await process.said(f"connection from uid {os.getuid()} refused by")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
async def test_the_kernel_says_who_connects(unix, place):
    path = unix('mode = "0666"', f'{PEER}[[plugins.auth.peers]]\nid = "billing"\ngid = 12346\n')
    code = (
        f"import os, socket\nos.setgid(int('%d'))\nos.setuid(12345)\ns = socket.socket(socket.AF_UNIX)\n"
        f"s.connect({str(place)!r})\ns.sendall({upgrade('/v1/realtime')!r})\nprint(s.recv(99).split()[1].decode())"
    )
    ask = partial(trio.run_process, capture_stdout=True)
    async with running(path, *RUN) as process:
        for gid, status in ((12346, b"101\n"), (12347, b"401\n")):
            done = await ask(["/usr/bin/env", "python3", "-c", code % gid])
            assert done.stdout == status
        await process.said("opened: principal billing")
        await process.said("connection from uid 12345 refused by")


# --- the file


@pytest.mark.parametrize(("listen", "mode"), [("", 0o660), ('mode = "0600"', 0o600), ('mode = "666"', 0o666)])
async def test_permissions(unix, place, listen, mode):
    async with running(unix(listen), *RUN):
        assert stat.S_IMODE(place.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a socket to any group")
async def test_the_group(unix, place):
    async with running(unix('group = "daemon"'), *RUN):
        assert place.stat().st_gid == 1


async def test_what_a_killed_daemon_left_is_replaced(unix, place):
    path = unix()
    async with started(path, *RUN) as process:
        await process.said("ready at")
        process.signal(signal.SIGKILL)
        await process.exited()
    assert place.is_socket()
    async with running(path, *RUN):
        answer = await knock(place)
        assert isinstance(answer, Head)
        assert answer.status == 401


async def test_a_second_daemon_does_not_take_the_socket_of_the_first(unix, place):
    path = unix()
    async with running(path, *RUN):
        (line,) = await failed(path, *RUN)
        assert line == (
            f"rtpipe: {path}:5: listen[0].address: cannot listen at unix:{place}: Address already in use: "
            "choose another address"
        )
        assert isinstance(await knock(place), Head)


async def test_a_successor_keeps_its_socket_when_the_first_stops(unix, place):
    path = unix()
    async with running(path, *RUN) as first:
        place.unlink()
        async with running(path, *RUN):
            first.signal()
            await first.exited()
            assert isinstance(await knock(place), Head)


async def test_something_else_in_the_way_is_left_alone(unix, place):
    path = unix()
    place.write_text("precious")
    (line,) = await failed(path, *RUN)
    assert line.endswith("something that is no socket is there: move it away, or choose another path")
    assert place.read_text() == "precious"


async def test_the_directory_and_the_group_have_to_be_there(unix, place, capsys, request):
    path = unix('group = "no-such-group"')
    expected = f"rtpipe: {path}:6: listen[0].group: there is no group no-such-group"
    assert main(["check", "--config", str(path)]) == 1
    assert capsys.readouterr().err == f"{expected}\n"
    assert await failed(path, *RUN) == [expected]
    path = unix()
    place.parent.rmdir()
    request.addfinalizer(place.parent.mkdir)
    (line,) = await failed(path, *RUN)
    assert line.endswith(f"cannot listen at unix:{place}: its directory does not exist: make it")


def test_check_prints_the_address(unix, place, capsys):
    assert main(["check", "--config", str(unix())]) == 0
    assert f"listen: unix:{place}\n" in capsys.readouterr().out


async def test_after_a_stop_nobody_is_kept_waiting(unix, place):
    async with running(unix(more=PEER), *RUN) as process:
        app = await knock(place)
        assert isinstance(app, WebSocket)
        await app.until("session.created")
        process.signal()
        _, ended = await app.ended()
        assert ended.code == 1012
        assert await process.exited() == 0
        with socket.socket(socket.AF_UNIX) as late:
            assert late.connect_ex(str(place)) in (errno.ENOENT, errno.ECONNREFUSED)
