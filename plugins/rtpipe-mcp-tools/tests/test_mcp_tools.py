"""The plugin against servers of the official SDK: a program, and one behind HTTP."""

import logging
import socket
import subprocess
import sys
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from rtpipe import ConfigError, HookFailed, ToolCall
from rtpipe.testing import ChainHarness
from rtpipe_mcp_tools import Config, McpTools, keeping

SERVER = Path(__file__).parent / "server.py"
PROGRAM = [sys.executable, str(SERVER), "stdio"]
SAMPLE = Path(__file__).parents[1] / "sample.toml"
WAIT_S = 30


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(keeping, "FIRST_DELAY_S", 0.01)


async def until(condition):
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await trio.sleep(0.01)


@asynccontextmanager
async def connected(**servers):
    """A session of a chain with these servers, and a function that calls a tool."""
    async with ChainHarness({"mcp-tools": (McpTools, {"servers": servers})}) as chain:
        plugin = chain.plugin("mcp-tools")
        view = chain.session.view("mcp-tools")

        async def ask(name, timeout_s=WAIT_S, **arguments):
            text = msgspec.json.encode(arguments).decode()
            return await view.answer_tool(ToolCall(call_id="c", name=name, arguments=text), timeout_s)

        ask.chain, ask.plugin = chain, plugin
        ask.names = lambda: {tool.name for tool in plugin.tools()}
        await until(lambda: all(server.is_connected for server in plugin.servers))
        yield ask


@asynccontextmanager
async def url():
    """The address of the server behind HTTP."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    process = await trio.lowlevel.open_process(
        [sys.executable, str(SERVER), "http", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.fixture(params=["program", "url"])
async def server(request):
    """The options of a server."""
    if request.param == "program":
        yield {"command": PROGRAM}
    else:
        async with url() as address:
            yield {"url": address}


async def test_tools_are_offered_and_answer(server):
    async with connected(test=server) as ask:
        (add,) = [tool for tool in ask.plugin.tools() if tool.name == "add"]
        assert (add.description, add.timeout_s, add.cancellable) == ("Adds.", 5.0, True)
        assert add.parameters["required"] == ["a", "b"]
        assert [tool.cancellable for tool in ask.plugin.tools() if tool.name == "say"] == [False]
        assert msgspec.json.decode(await ask("add", a=1, b=2)) == {"result": 3}
        assert await ask("say", text="yes") == "yes\nyes"
        assert await ask("none") is None
        assert ask.plugin.health().ok


async def test_a_tool_that_fails(server, caplog):
    async with connected(test=server) as ask:
        with pytest.raises(HookFailed, match="SELECT"):  # for the log
            await ask("fail")
        assert await ask("say", text="on") == "on\non"


async def test_a_tool_that_fails_in_the_server_s_words(server):
    async with connected(test={**server, "show_errors": True}) as ask:
        answer = msgspec.json.decode(await ask("fail"))
        assert (answer["status"], answer["retry"]) == ("error", "no")
        assert "SELECT" in answer["error"]


async def test_a_result_that_is_too_long(server):
    async with connected(test=server) as ask:
        with pytest.raises(HookFailed, match="more than 262144 bytes"):
            await ask("long")


async def test_a_call_that_is_given_up_is_cancelled_at_the_server(server, tmp_path):
    file = tmp_path / "state"
    async with connected(test=server) as ask:
        async with trio.open_nursery() as nursery:

            async def wait():
                await ask("wait", file=str(file))

            nursery.start_soon(wait)
            await until(file.exists)
            await until(lambda: file.read_text() == "waiting")
            nursery.cancel_scope.cancel()
        await until(lambda: file.read_text() == "cancelled")
        assert await ask("say", text="on") == "on\non"


async def test_sessions_get_the_tools_that_come_later(server):
    async with connected(test=server) as ask:
        before = ask.names()
        asked = []
        ask.chain.session.reconfigure = lambda: asked.append(ask.names())
        await ask("grow")
        await until(lambda: asked)
        assert ask.names() - before == {"grown"}
        assert asked == [ask.names()]


async def test_a_prefix_and_the_tools_that_are_allowed(server):
    async with connected(test={**server, "prefix": "t_", "allow": ["a*", "say"]}) as ask:
        assert ask.names() == {"t_add", "t_say"}
        assert await ask("t_say", text="x") == "x\nx"
        assert await ask("say", text="x") is None
        assert await ask("t_fail") is None


async def test_how_long_a_call_may_take():
    async with connected(test={"command": PROGRAM, "timeout_ms": 250}) as ask:
        assert {tool.timeout_s for tool in ask.plugin.tools()} == {0.25}


async def test_of_two_servers_the_first_is_asked():
    two = {"command": PROGRAM, "allow": ["environment"], "env": {"WHO": "two"}}
    async with connected(one={**two, "env": {"WHO": "one"}}, two=two) as ask:
        assert len(ask.plugin.tools()) == 1
        assert msgspec.json.decode(await ask("environment"))["WHO"] == "one"


async def test_the_environment_of_a_program(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "marked")
    monkeypatch.setenv("TOKEN", "for-the-server")
    options = {"env": {"A": "b", "ITS_TOKEN": {"env": "TOKEN"}}, "directory": str(tmp_path)}
    async with connected(test={"command": PROGRAM, **options}) as ask:
        given = msgspec.json.decode(await ask("environment"))
        assert (given["A"], given["ITS_TOKEN"]) == ("b", "for-the-server")
        assert given["directory"] == str(tmp_path)
        assert set(given) - {"A", "ITS_TOKEN", "directory", "LC_CTYPE"} <= {
            "HOME",
            "LOGNAME",
            "PATH",
            "SHELL",
            "TERM",
            "USER",
        }


async def test_what_a_program_writes_for_people_is_in_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    async with connected(test={"command": PROGRAM}) as ask:
        await ask("shout")
        await until(lambda: "server test: stderr: shouted" in caplog.messages)
        assert max(len(line) for line in caplog.messages if "stderr" in line) < 550


async def test_a_program_that_ends_is_started_again(caplog):
    async with connected(test={"command": PROGRAM}) as ask:
        seen = []
        ask.chain.session.reconfigure = lambda: seen.append(len(ask.names()))
        with pytest.raises(HookFailed, match="server test"):
            await ask("die")
        await until(lambda: len(seen) >= 2)
        assert seen[0] == 0
        assert seen[1] > 0
        assert await ask("say", text="back") == "back\nback"


async def test_a_program_that_ends_while_nobody_calls_is_missed(tmp_path):
    quits = tmp_path / "quits.py"
    quits.write_text(
        f"import runpy, sys, threading, os\nif not os.path.exists({str(tmp_path / 'once')!r}):\n"
        f"    open({str(tmp_path / 'once')!r}, 'w').close()\n    threading.Timer(2, os._exit, [0]).start()\n"
        f"sys.argv = ['server.py', 'stdio']\nrunpy.run_path({str(SERVER)!r}, run_name='__main__')\n"
    )
    async with connected(test={"command": [sys.executable, str(quits)]}) as ask:
        lost = []
        ask.chain.session.reconfigure = lambda: lost.append(len(ask.names()))
        await until(lambda: len(lost) == 2)
        assert lost[0] == 0


async def test_a_server_that_is_not_there(caplog):
    server = {"command": ["/nonexistent/program"]}
    async with ChainHarness({"mcp-tools": (McpTools, {"servers": {"gone": server}})}) as chain:
        await until(lambda: len([m for m in caplog.messages if m.startswith("server gone: ")]) > 1)
        assert "No such file" in caplog.text
        plugin = chain.plugin("mcp-tools")
        assert (plugin.tools(), plugin.health().ok) == ([], False)
        assert plugin.health().sentence == "not connected: gone"


def children():
    """The processes that this one has started."""
    lists = [task / "children" for task in Path("/proc/self/task").iterdir()]
    return {int(pid) for each in lists for pid in each.read_text().split()}


async def test_programs_end_with_the_gateway():
    async with connected(test={"command": PROGRAM}) as ask:
        mine = children()
        assert mine
        assert await ask("say", text="x")
    assert not mine & children()


async def test_headers_and_secrets(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", "marked-token")
    heard = b""

    async def hear(stream):
        nonlocal heard
        heard += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
        nursery.start_soon(trio.serve_listeners, hear, [listener])
        options = {"headers": {"X-Site": "foyer"}, "bearer": {"env": "TOKEN"}}
        async with ChainHarness(
            {"mcp-tools": (McpTools, {"servers": {"desk": {"url": address, **options}}})}
        ):
            await until(lambda: heard and "server desk: " in caplog.text)
        nursery.cancel_scope.cancel()
    assert b"authorization: bearer marked-token" in heard.lower()
    assert b"x-site: foyer" in heard.lower()
    assert "marked-token" not in caplog.text


async def test_a_secret_that_is_not_there_is_said_at_the_start(monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    servers = {"desk": {"url": "https://a.example/", "bearer": {"env": "TOKEN"}}}
    with pytest.raises(ConfigError, match=r"servers\.desk: no secret found in env 'TOKEN'"):
        async with ChainHarness({"mcp-tools": (McpTools, {"servers": servers})}):
            pass


def test_the_sdk_is_not_loaded_before_it_is_used():
    code = "import sys, rtpipe_mcp_tools; sys.exit('mcp' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({}, "one of command and url"),
        ({"command": ["/x"], "url": "https://a.example/"}, "one of command and url"),
        ({"command": ["npx", "x"]}, "absolute path of the program"),
        ({"command": ["/x"], "directory": "x"}, "absolute path"),
        ({"command": ["/x"], "bearer": {"env": "X"}}, "are for a url"),
        ({"command": ["/x"], "headers": {"a": "b"}}, "are for a url"),
        ({"url": "https://a.example/", "env": {"a": "b"}}, "are for a command"),
        ({"url": "https://a.example/", "directory": "/x"}, "are for a command"),
        (
            {"url": "https://a.example/", "headers": {"authorization": "x"}, "bearer": {"env": "X"}},
            "give one of",
        ),
        ({"url": "http://a.example/"}, "http is for this machine alone"),
        ({"url": "https://u:p@a.example/"}, "no user name or password"),
        ({"url": "a.example"}, "write https://host/path"),
        ({"url": "https://a.example:x/"}, "it is none"),
        ({"command": ["/x"], "prefix": "a."}, "prefix 'a.'"),
        ({"command": ["/x"], "timeout_ms": 0}, ">= 1"),
        ({"command": ["/x"], "shell": True}, "unknown field `shell`"),
    ],
)
def test_mistakes(server, why):
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert({"servers": {"x": server}}, Config)


def test_the_sample_is_right_with_everything_in_it():
    lines = SAMPLE.read_text("utf-8").splitlines()
    everything = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line for line in lines
    )
    assert tomllib.loads("\n".join(lines)) == {"plugins": {"mcp-tools": {}}}
    servers = msgspec.convert(tomllib.loads(everything)["plugins"]["mcp-tools"], Config).servers
    assert set(servers) == {"files", "desk"}
