"""Sockets that somebody else keeps: an upgrade during which nobody is refused."""

import socket
import sys
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from tests.daemon.kit import CREATED, bearer, client, scripted, started
from tests.daemon.test_watchdog import manager, told
from tests.daemon.wire import WAIT_S, Ended, WebSocket, get, knock
from tests.transport import certificates

LAUNCH = """
import fcntl, os, sys
names, numbers, *command = sys.argv[1:]
numbers = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers.split(",")]
for place, number in enumerate(numbers, 3):
    os.dup2(number, place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(numbers)), "LISTEN_FDNAMES": names}
os.execv(command[0], command)
"""


@asynccontextmanager
async def supervised(file, environment=None, strict=("-X", "dev", "-W", "error"), **sockets):
    """A daemon that is passed sockets by their names, as systemd does it."""
    numbers = [each.fileno() for each in sockets.values()]
    launcher = [sys.executable, "-c", LAUNCH, ":".join(sockets), ",".join(map(str, numbers))]
    as_launched = {"environment": environment, "launcher": launcher, "pass_fds": numbers}
    async with started(file, **as_launched, strict=strict) as gateway:
        yield gateway


def passed(path, name="front"):
    path.write_text(path.read_text().replace("127.0.0.1:0", f"fd:{name}"))
    return path


async def test_nobody_is_refused_during_an_upgrade(file, tmp_path):
    """100 clients keep connecting while daemons take each other's place."""
    answers = []
    over = trio.Event()

    async def keep_connecting(address):
        while not over.is_set():
            answer = await knock(address, "/v1/realtime", bearer())
            answers.append(answer.head.status if isinstance(answer, WebSocket) else answer.status)
            if isinstance(answer, WebSocket):
                with suppress(Ended):  # 1012, in the daemon that was told to stop
                    assert await answer.receive() == CREATED
                await trio.aclose_forcefully(answer.stream)

    async def more(count):
        enough = len(answers) + count
        with trio.fail_after(WAIT_S):
            while len(answers) < enough:  # noqa: ASYNC110 - the clients count, they do not tell
                await trio.sleep(0.01)

    async def serve(number, *, task_status):
        with manager(tmp_path, f"notify{number}") as (heard, environment):
            async with supervised(path, environment, front=front) as gateway:
                await told(heard, "READY")
                task_status.started(gateway)
                assert await gateway.process.wait() == 0
                assert "Traceback" not in gateway.err, gateway.err

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as front:
        async with scripted() as model, trio.open_nursery() as daemons:
            path = passed(file(model.url))
            running = await daemons.start(serve, 0)
            async with trio.open_nursery() as clients:
                for _ in range(100):
                    clients.start_soon(keep_connecting, front.getsockname())
                for number in (1, 2):
                    await more(100)
                    successor = await daemons.start(serve, number)
                    running.signal()
                    await running.exited()
                    running = successor
                await more(100)
                over.set()
            running.signal()
    assert len(answers) >= 300
    assert set(answers) == {101}


async def test_an_answer_in_progress_is_finished_beside_the_successor(file, tmp_path):
    done = {"id": "resp_1", "object": "realtime.response", "status": "completed", "output": []}
    with socket.create_server(("127.0.0.1", 0)) as front:
        async with (
            scripted() as model,
            supervised(passed(file(model.url)), front=front) as old,
            client(front.getsockname()) as app,
        ):
            upstream = await model.next()
            await app.tell("response.create")
            await upstream.until("response.create")
            await upstream.tell("response.created", response={**done, "status": "in_progress"})
            await app.until("response.created")
            async with supervised(tmp_path / "rtpipe.toml", front=front) as new:
                await new.said(" with chain ")
                old.signal()
                await old.said("SIGTERM: stopping, 1 sessions")
                async with client(front.getsockname()) as late:
                    assert await late.receive() == CREATED
                await upstream.tell("response.done", response=done)
                events, end = await app.ended()
                assert ([event["type"] for event in events], end.code) == (["response.done"], 1012)
                assert await old.exited() == 0, old.err
                new.signal()
                assert await new.exited() == 0, new.err


async def test_tcp_and_unix_by_name(file, tmp_path):
    place = tmp_path / "local.sock"
    path = passed(file(more='[[listen]]\naddress = "fd:local"\nopen = true'))
    with socket.create_server(("127.0.0.1", 0)) as front, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(place))
        local.listen()
        async with supervised(path, front=front, local=local) as gateway:
            await gateway.said(" with chain ")
            host, port = front.getsockname()
            assert f"ready at ws://{host}:{port}/v1/realtime unix:{place} " in gateway.out
            assert (await get((host, port), "/readyz")).status == 200
            async with await trio.open_unix_socket(str(place)) as stream:
                await stream.send_all(b'{"type":"rtpipe.hello","role":"tap"}\n')
                assert b"rtpipe.refused" in await stream.receive_some(1000)  # JSON lines are spoken
            gateway.signal()
            assert await gateway.exited() == 0
        assert place.exists()  # it is not the daemon's to take away


@pytest.mark.parametrize(
    ("sockets", "listen", "what"),
    [
        ("none", "", "no socket was passed by the name front (is the socket unit started?)"),
        ("udp", "", "cannot listen at fd:front: it is no stream socket that is listened at"),
        ("deaf", "", "cannot listen at fd:front: it is no stream socket that is listened at"),
        ("unix", "tls", "a Unix socket has this name, and a Unix socket has no TLS"),
    ],
)
async def test_what_cannot_be_served(file, tmp_path, sockets, listen, what):
    kinds = {"udp": socket.SOCK_DGRAM, "deaf": socket.SOCK_STREAM, "unix": socket.SOCK_STREAM}
    if listen:
        pair = certificates.make(tmp_path / "tls", "localhost")
        listen = f'tls = {{ certificate = "{pair.certificate}", key = "{pair.key}" }}'
    path = passed(file(listen=listen))
    family = socket.AF_UNIX if sockets == "unix" else socket.AF_INET
    with socket.socket(family, kinds.get(sockets, socket.SOCK_STREAM)) as made:
        given = {} if sockets == "none" else {"front": made}
        if sockets == "unix":
            made.bind(str(tmp_path / "x.sock"))
            made.listen()
        async with supervised(path, **given) if given else started(path) as gateway:
            assert await gateway.exited() == 1
    assert [line for line in gateway.log if what in line], gateway.log
    assert "Traceback" not in gateway.err
