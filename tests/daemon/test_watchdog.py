"""The event loop: who keeps it from turning is named, and the service manager hears so by hearing nothing."""

import os
import socket
import time
from contextlib import contextmanager, suppress

import pytest
import trio

from rtpipe.daemon import watchdog
from rtpipe.daemon.watchdog import Watchdog
from tests.daemon.kit import meeting, running, scripted
from tests.daemon.wire import WAIT_S

BLOCKS = """
import time
from rtpipe import Plugin, on_client

class Faulty(Plugin[None, None]):
    @on_client("block.def")
    def a(self, session, event):
        time.sleep(2)

    @on_client("block.async")
    async def b(self, session, event):
        await self.deeper()

    async def deeper(self):
        time.sleep(2)
"""


@contextmanager
def manager(tmp_path, name="notify"):
    """A service manager's socket, and the environment that tells of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / name))
        yield trio.socket.from_stdlib_socket(heard), {"NOTIFY_SOCKET": str(tmp_path / name)}


async def told(heard, key):
    """Wait until the service manager is told *key*: all fields of that message."""
    with trio.fail_after(WAIT_S):
        while True:
            fields = dict(line.split("=", 1) for line in (await heard.recv(4096)).decode().split("\n"))
            if key in fields:
                return fields


async def test_the_plugin_that_blocks_is_named(file, plugin):
    environment = plugin(BLOCKS)
    async with (
        scripted() as model,
        running(file(model.url, chain=("auth", "faulty")), environment=environment) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        for number, kind in enumerate(("def", "async"), 1):
            await app.tell(f"block.{kind}")
            await gateway.said("the event loop turns again, after", times=number)
            assert (await upstream.event())["type"] == f"block.{kind}"
    lines = [line for line in gateway.log if "has not turned for 1.0 s: plugin faulty blocks it in " in line]
    assert len(lines) == 2
    assert all("test_plugin_faulty.py:" in line for line in lines)


async def test_the_service_manager_is_told(file, tmp_path):
    path = file()
    with manager(tmp_path) as (heard, environment):
        async with running(path, environment=environment | {"WATCHDOG_USEC": "300000"}) as gateway:
            assert (await told(heard, "READY"))["STATUS"].startswith("serving ws://127.0.0.1:")
            await told(heard, "WATCHDOG")
            await told(heard, "WATCHDOG")
            path.write_text("chain = [")
            gateway.process.send_signal(1)
            assert int((await told(heard, "RELOADING"))["MONOTONIC_USEC"]) > 0
            assert "not valid TOML" in (await told(heard, "READY"))["STATUS"]
            gateway.signal()
            assert (await told(heard, "STOPPING"))["STATUS"] == "stopping, 0 sessions end once they are idle"
            await gateway.exited()
            gateway.err = gateway.err.replace("ERROR", "")


async def test_it_hears_nothing_while_the_loop_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    with manager(tmp_path) as (heard, environment):
        monkeypatch.setenv(*environment.popitem())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watchdog().run)
            await told(heard, "WATCHDOG")
            with socket.fromfd(heard.fileno(), heard.family, heard.type) as straight:
                with suppress(BlockingIOError):
                    while straight.recv(4096, socket.MSG_DONTWAIT):
                        pass
                time.sleep(0.3)  # noqa: ASYNC251 - ten times as long as it may be silent
                with pytest.raises(BlockingIOError):
                    straight.recv(4096, socket.MSG_DONTWAIT)
            await told(heard, "WATCHDOG")
            nursery.cancel_scope.cancel()


async def test_somebody_else_s_watchdog(tmp_path, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog._watchdog_s() == 0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog._watchdog_s() == 0.03
