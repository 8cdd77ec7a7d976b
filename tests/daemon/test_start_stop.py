"""How a daemon starts, does not start, and stops."""

import signal
import socket

import pytest
import trio

from tests.daemon.kit import CREATED, bearer, client, failed, listening, running, scripted, started
from tests.daemon.wire import WAIT_S, get, read_head, upgrade


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_right_after_ready(file, number):
    async with started(file()) as told:
        await told.said("rtpipe: ready at ")
        told.signal(number)
        assert await told.exited() == 0
    assert "Traceback" not in told.err


async def test_what_it_says_when_ready(file):
    async with running(file()) as gateway:
        await gateway.said("\n")
        host, port = gateway.address
        assert gateway.out == f"rtpipe: ready at ws://{host}:{port}/v1/realtime with chain auth\n"


async def test_sessions_end_with_service_restart(file):
    async with (
        scripted() as model,
        running(file(model.url)) as gateway,
        client(gateway.address) as app,
        client(gateway.address) as other,
    ):
        upstreams = [await model.next(), await model.next()]
        for each in (app, other):
            assert await each.receive() == CREATED
        gateway.signal()
        for each in (app, other):
            events, end = await each.ended()
            assert (events, end.code, end.reason) == ([], 1012, "service restart")
        for each in upstreams:
            assert (await each.ended())[1].code == 1000
        assert await gateway.exited() == 0


async def test_while_it_stops_nobody_gets_in(file):
    # A client that does not answer the close frame keeps the daemon from ending for a moment.
    async with scripted() as model, running(file(model.url)) as gateway, client(gateway.address) as stubborn:
        await stubborn.receive()
        async with await trio.open_tcp_stream(*gateway.address) as late:
            raw = upgrade("/v1/realtime", bearer())
            await late.send_all(raw[:-2])
            # It has been accepted once somebody who came later has an answer.
            assert (await get(gateway.address, "/healthz")).status == 200
            gateway.signal()
            await gateway.said("SIGTERM: stopping")
            await late.send_all(raw[-2:])
            assert (await read_head(late)).status == 503


async def test_a_session_that_is_being_made_while_it_stops(file):
    asked = trio.Event()

    async def handler(stream):
        await read_head(stream)
        asked.set()
        await trio.sleep_forever()

    async with (
        listening(handler) as hanging,
        running(file(hanging)) as gateway,
        await trio.open_tcp_stream(*gateway.address) as app,
    ):
        await app.send_all(upgrade("/v1/realtime", bearer()))
        with trio.fail_after(WAIT_S):
            await asked.wait()
        gateway.signal()
        assert (await read_head(app)).status == 503
        assert await gateway.exited() == 0


async def test_a_second_signal_stops_at_once(file):
    async with scripted() as model, started(file(model.url)) as gateway:
        await gateway.said("ready at")
        async with client(gateway.address) as stubborn:  # does not answer the close frame
            await stubborn.receive()
            gateway.signal()
            await gateway.said("SIGTERM: stopping")
            gateway.signal()
            assert await gateway.exited() == 1
    assert "SIGTERM again: stopping at once" in gateway.err


async def test_a_port_in_use(file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = file()
        path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        (line,) = await failed(path)
    assert f"127.0.0.1:{port}: Address already in use" in line


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (("chain = ", "chian = "), "1: chian: ", "unknown option (did you mean chain?)"),
        (('"127.0.0.1:0"', '"127.0.0.1"'), "5: listen[0].address: ", "expected host:port"),
        (('["auth"]', '["response-lock"]\nplugins.auth.enabled = false'), "5: listen[0]: ", "open = true"),
        (('["auth"]', '["auth", "auht"]'), "1: chain[1]: ", "not installed (did you mean auth?)"),
        (('id = "app"', 'id = "a p p"'), "16: plugins.auth.keys[0]: ", "cannot be used"),
        (("TEST_UPSTREAM_KEY", "TEST_NO_KEY"), "12: upstream[0].api_key: ", "TEST_NO_KEY"),
        (("chain = ", "chain == "), "1: ", "Invalid value"),
    ],
)
async def test_a_mistake_in_the_configuration_is_one_line(file, change, where, what):
    path = file()
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    (line,) = await failed(path)
    assert line.startswith(f"rtpipe: {path}:{where}"), line
    assert what in line


@pytest.mark.parametrize(
    ("first", "second"),
    [("", 'address = "127.0.0.1:0"'), ('name = "127.0.0.1:1"', 'address = "127.0.0.1:1"')],
    ids=["two free ports", "a name like an address"],
)
async def test_listeners_are_told_apart(file, first, second):
    """By the name a connection finds the rules of its door: an open one must not open the other."""
    path = file(listen=f"{first}\nopen = true", more=f"[[listen]]\n{second}")
    (line,) = await failed(path)
    assert "listen[1].name: another listener has this name" in line


async def test_no_configuration(tmp_path):
    (line,) = await failed(tmp_path / "none.toml")
    assert "none.toml" in line


async def test_a_host_that_does_not_exist(file):
    path = file()
    path.write_text(path.read_text().replace("127.0.0.1:0", "no-such-host.invalid:0"))
    (line,) = await failed(path)
    assert "cannot listen at no-such-host.invalid:0" in line


async def test_a_state_directory_that_cannot_be(file, tmp_path):
    """Nothing in the chain keeps anything, so nothing is amiss."""
    (tmp_path / "state").write_text("a file")
    async with running(file(chain=[], listen="open = true")) as gateway:
        assert (await get(gateway.address, "/healthz")).status == 200


async def test_a_refused_listener_leaves_none_behind(file):
    """The second address is in use: the first is let go of, and nothing of the daemon stays."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        more = f'[[listen]]\naddress = "127.0.0.1:{port}"'
        (line,) = await failed(file(more=more))
    assert f"cannot listen at 127.0.0.1:{port}" in line
