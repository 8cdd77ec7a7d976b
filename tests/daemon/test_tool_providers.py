"""The stages that offer tools, beside the one that runs calls: an HTTP tool, MCP servers over both
transports, and a service in plain shell, with the simulated model and a client that knows of none of it.
"""

import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.architecture.tree import ROOT
from tests.daemon.kit import MODEL, running
from tests.daemon.lines import speaking
from tests.daemon.test_json_lines import RUN, says, text_of
from tests.daemon.test_tool_lines import TOOLS_KEY, key_table
from tests.daemon.wire import WAIT_S
from tests.docs.pages import block

MCP_SERVER = ROOT / "plugins/rtpipe-mcp-tools/tests/server.py"
HTTP_TOOL = """
[plugins.http-tools.tools.get_weather]
url = "http://127.0.0.1:{port}/{{city}}"
description = "The weather."
method = "GET"
parameters = {{ type = "object", properties = {{ city = {{ type = "string" }} }} }}
result = "now"
"""


@pytest.fixture
def configured(place, file):
    def write(*stages, more=""):
        return file(
            chain=["auth", *stages, "tool-dispatcher"],
            more=f'[[listen]]\naddress = "unix:{place}"\n'
            + key_table("desk", TOOLS_KEY, 'roles = ["tools", "session"]')
            + more,
        )

    return write


async def told(place, words):
    """What the model says of a tool's result; the client must see neither call nor result."""
    async with speaking(place, role="session", model=MODEL, key=TOOLS_KEY) as lines:
        await lines.until("session.created")
        session = {"type": "realtime", "output_modalities": ["text"]}
        await lines.tell("session.update", session=session)
        await lines.until("session.updated")
        await says(lines, words)
        seen = []
        while not text_of(seen):
            seen += await lines.until("response.done")
        assert "function_call" not in str(seen)
        return text_of(seen)


@asynccontextmanager
async def weather():
    """The port of an HTTP server with the weather of each path."""

    async def answer(stream):
        path = (await stream.receive_some()).split()[1].decode()
        body = f'{{"now": "sunny in {path[1:]}"}}'.encode()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_an_http_tool(configured, place):
    async with weather() as port:
        path = configured("http-tools", more=HTTP_TOOL.format(port=port))
        async with running(path, *RUN):
            said = await told(place, 'call get_weather {"city": "Oslo"}')
    assert said == 'The tool answered: {"status":"success","result":"sunny in Oslo"}'


@asynccontextmanager
async def mcp_behind_http():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(MCP_SERVER), "http", str(port)]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL)
    try:
        yield f'url = "http://127.0.0.1:{port}/mcp"'
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def mcp_program():
    yield f'command = ["{sys.executable}", "{MCP_SERVER}", "stdio"]'


@pytest.mark.parametrize("reached", [mcp_program, mcp_behind_http])
async def test_an_mcp_server(configured, place, reached):
    async with reached() as server:
        path = configured("mcp-tools", more=f"[plugins.mcp-tools.servers.test]\n{server}\n")
        async with running(path, *RUN) as gateway:
            await gateway.said("server test: connected")
            said = await told(place, 'call add {"a": 1, "b": 2}')
    assert said == 'The tool answered: {"status":"success","result":{"result":3}}'


@pytest.mark.skipif(shutil.which("socat") is None, reason="needs socat")
async def test_a_service_in_plain_shell(configured, place, tmp_path):
    script = tmp_path / "opening_hours.sh"
    script.write_text(block("config/README.md", "tested: tool-service").replace("…", TOOLS_KEY))
    script.chmod(0o700)
    command = block("config/README.md", "tested: tool-service-run").replace(
        "/run/rtpipe/rtpipe.sock", str(place)
    )
    async with running(configured(), *RUN) as gateway, trio.open_nursery() as nursery:
        shell = ["/bin/sh", "-c", f"exec {command}"]
        nursery.start_soon(partial(trio.run_process, shell, cwd=tmp_path, stderr=subprocess.DEVNULL))
        with trio.fail_after(WAIT_S):
            await gateway.said("tools of desk: opening_hours")
        said = await told(place, "call opening_hours {}")
        nursery.cancel_scope.cancel()
    assert said == 'The tool answered: {"status":"success","result":"nine to five"}'
