"""Plugins that misbehave in a running daemon: contained by their policy, named once, nobody else hurt."""

import sys
import textwrap

import pytest

from tests.daemon.kit import KEY, bearer, client, failed, in_process, meeting, refused, running, scripted
from tests.daemon.wire import ask, get

FAULTY = """
import sys
import trio
from rtpipe import Plugin, on_client, on_server

class Odd(BaseException):
    pass

class Faulty(Plugin[None, None]):
    @on_client("response.cancel")
    async def act(self, session, event):
        match event.data.get("how"):
            case "raise":
                raise ValueError("a \\x1b[31mred\\nherring")
            case "hang":
                await trio.sleep_forever()
            case "nonsense":
                return 7
            case "exit":
                sys.exit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "odd":
                raise Odd
            case "group":
                raise BaseExceptionGroup("several", [ValueError("one"), SystemExit(2)])
"""
HOWS = ("raise", "hang", "nonsense", "exit", "interrupt", "odd", "group")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a plugin: for this process, and by the returned environment for daemons in another."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = []

    def install(source, name="faulty"):
        module = f"test_plugin_{name}"
        modules.append(module)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[rtpipe.plugins]\n{name} = {module}:{name.capitalize()}\n")
        return {"PYTHONPATH": ":".join([str(site), *filter(None, sys.path)])}

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def named(log):
    return [line for line in log if "plugin faulty" in line]


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


CHAIN = ["auth", "faulty"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("policy", ["close", "drop", "pass"])
async def test_an_event_hook_fails(text, plugin, caplog, how, policy):
    plugin(FAULTY)
    more = f'[plugins.faulty]\non_error = "{policy}"\ntimeout_ms = 20'
    faulty = b'{"type":"response.cancel","how":"' + how.encode() + b'"}'
    async with (
        scripted() as model,
        in_process(text(model.url, chain=CHAIN, more=more)) as gateway,
        meeting(gateway, model) as (other, theirs),
        meeting(gateway, model) as (app, upstream),
    ):
        for _ in range(2):
            await app.send(faulty)
        if policy == "pass":
            assert [await upstream.receive(), await upstream.receive()] == [faulty, faulty]
        elif policy == "drop":
            for _ in range(2):
                assert (await app.event())["error"]["code"] == "event_dropped"
        else:
            assert (await app.ended())[1].code == 1011
            assert (await upstream.ended())[1].code == 1000
        await other.tell("response.cancel")
        assert await theirs.receive() == b'{"type":"response.cancel"}'
    assert len(named(lines(caplog))) == 1


async def test_a_daemon_process_outlives_what_plugins_do(file, plugin):
    environment = plugin(FAULTY)
    more = '[plugins.faulty]\non_error = "pass"\ntimeout_ms = 20'
    async with (
        scripted() as model,
        running(file(model.url, chain=CHAIN, more=more), environment=environment) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        for how in (*HOWS, *HOWS):
            await app.tell("response.cancel", how=how)
            await upstream.receive()
    # One line for each kind of failure; `odd` and `group` are kinds of their own.
    assert len(named(gateway.log)) == len(HOWS)
    assert "a \\x1b[31mred\\nherring" in gateway.err
    assert "\x1b" not in gateway.err


FAILING = """
import sys
import trio
from rtpipe import Plugin, Refused

class Faulty(Plugin[None, None]):
    async def {hook}(self, {arguments}):
        {body}
"""
BODIES = {
    "raise": 'raise ValueError("no")',
    "exit": "sys.exit(3)",
    "hang": "await trio.sleep_forever()",
}


@pytest.mark.parametrize("how", BODIES)
@pytest.mark.parametrize(
    ("hook", "arguments"),
    [("authenticate", "request"), ("session_open", "session"), ("upstream_dial", "session, request")],
)
async def test_a_hook_of_the_handshake_fails(text, plugin, caplog, hook, arguments, how):
    plugin(FAILING.format(hook=hook, arguments=arguments, body=BODIES[how]))
    async with scripted() as model:
        more = "[limits]\nconnect_timeout_s = 0.3"
        chain = CHAIN[::-1]
        async with in_process(text(model.url, chain=chain, more=more)) as gateway:
            answer = await refused(gateway.address)
            assert answer.status == (504 if how == "hang" else 503)
            assert (await get(gateway.address, "/healthz")).status == 200
    if how != "hang":
        assert len(named(lines(caplog))) == 1


@pytest.mark.parametrize("answer", ["7", "True", "'app'", "{}"])
async def test_an_authenticator_answers_nonsense(text, plugin, answer):
    plugin(FAILING.format(hook="authenticate", arguments="request", body=f"return {answer}"))
    async with in_process(text(chain=["faulty"])) as gateway:
        assert (await refused(gateway.address)).status == 503


async def test_a_refusal_that_http_cannot_carry(text, plugin):
    body = 'raise Refused(999, "co\\nde", "mess\\nage", {"X-Évil\\r\\n": "\\r\\n\\r\\n"})'
    plugin(FAILING.format(hook="authenticate", arguments="request", body=body))
    async with in_process(text(chain=["faulty"])) as gateway:
        answer = await refused(gateway.address)
        assert answer.status == 500
        assert "x-évil" not in answer.headers


@pytest.mark.parametrize("how", ["raise", "exit"])
@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("session_close", "session, ending"),
        ("client_attached", "session"),
        ("fact", "session, fact"),
        ("health", ""),
        ("configure", "session, draft"),
    ],
)
async def test_any_other_hook_fails(text, plugin, caplog, hook, arguments, how):
    plugin(FAILING.format(hook=hook, arguments=arguments, body=BODIES[how]))
    more = '[plugins.faulty]\non_error = "pass"'
    async with scripted() as model, in_process(text(model.url, chain=CHAIN, more=more)) as gateway:
        for _ in range(2):
            async with meeting(gateway, model) as (app, upstream):
                await app.tell("hello")
                assert await upstream.receive() == b'{"type":"hello"}'
                await app.close()
            await get(gateway.address, "/healthz")
        # The end of the last session is seen by the plugin before the daemon is gone.
        await gateway.process.empty()
    assert len(named(lines(caplog))) == 1


async def test_health_of_plugins(text, plugin):
    plugin(
        """
        from rtpipe import Health, Plugin
        class Well(Plugin[None, None]):
            def health(self):
                return Health(True, "never better")
    """,
        "well",
    )
    plugin(
        """
        from rtpipe import Health, Plugin
        class Ill(Plugin[None, None]):
            def health(self):
                return Health(False, "3 of 4 disks \\x1b[31m")
    """,
        "ill",
    )
    plugin(FAILING.format(hook="health", arguments="", body="return 7"))
    async with in_process(text(chain=["auth", "well"])) as gateway:
        assert (await get(gateway.address, "/healthz")).status == 200
    async with in_process(text(chain=["auth", "well", "ill", "faulty"])) as gateway:
        answer = await get(gateway.address, "/healthz")
        assert answer.status == 503
        assert b'"well":"never better"' in answer.rest
        assert b'"faulty":"does not answer"' in answer.rest
        assert b"\x1b" not in answer.rest
        assert (await get(gateway.address, "/readyz")).status == 200


ROUTES = """
import sys
from rtpipe import Plugin, Response, Route

class Pages(Plugin[None, None]):
    def routes(self):
        return [
            Route("GET", "/mine", self.mine, access="open"),
            Route("POST", "/mine", self.echo),
            Route("GET", "/bad", self.bad, access="open"),
            Route("POST", "/v1/realtime/client_secrets", self.mine),
        ]

    async def mine(self, request, body):
        return Response(200, {"path": request.path}, {"X-Mine": "1"})

    async def echo(self, request, body):
        return Response(201, body)

    async def bad(self, request, body):
        match request.query["how"][0]:
            case "raise": raise ValueError("secret detail")
            case "exit": sys.exit(3)
            case "nonsense": return "hello"
            case "status": return Response(7)
            case "header": return Response(200, b"", {"X": "a\\r\\nSet-Cookie: b"})
            case "letter": return Response(200, b"", {"X": "é"})
            case "body": return Response(200, {"x": object()})
"""


async def test_routes_of_a_plugin(text, plugin):
    plugin(ROUTES, "pages")
    async with in_process(text(chain=["auth", "pages"])) as gateway:
        answer = await get(gateway.address, "/mine?x=1")
        assert (answer.status, answer.rest, answer.headers["x-mine"]) == (200, b'{"path":"/mine"}', "1")
        assert (await get(gateway.address, "/mine", method="POST")).status == 401
        sized = [*bearer(), ("Content-Length", "0")]
        assert (await get(gateway.address, "/mine", sized, "POST")).status == 201
        head = f"POST /mine HTTP/1.1\r\nHost: x\r\nAPI-Key: {KEY}\r\nContent-Length: 70000\r\n\r\n".encode()
        assert (await ask(gateway.address, head + bytes(70000))).status == 413
        assert (await get(gateway.address, "/mine", method="PUT")).status == 404
        assert (await get(gateway.address, "/v1/realtime/client_secrets", sized, "POST")).status == 200


@pytest.mark.parametrize("how", ["raise", "exit", "nonsense", "status", "header", "letter", "body"])
async def test_a_route_that_fails(text, plugin, caplog, how):
    plugin(ROUTES, "pages")
    async with in_process(text(chain=["auth", "pages"])) as gateway:
        for _ in range(2):
            answer = await get(gateway.address, f"/bad?how={how}")
            assert (answer.status, answer.error["code"]) == (500, "plugin_failed")
            assert b"secret detail" not in answer.rest
            assert "set-cookie" not in answer.headers
    assert len([line for line in lines(caplog) if "plugin pages" in line]) == 1
    assert not [record for record in caplog.records if record.exc_info]


BROKEN = {
    "startup": (
        FAILING.format(hook="startup", arguments="", body=BODIES["raise"]),
        "does not start: ValueError",
    ),
    "exit": (FAILING.format(hook="startup", arguments="", body=BODIES["exit"]), "does not start: SystemExit"),
    "routes": (FAILING.format(hook="routes", arguments="", body="return 7"), "its routes cannot be had"),
    "a route": (FAILING.format(hook="routes", arguments="", body="return [7]"), "its routes cannot be had"),
    "import": ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
    "exit at import": ("import sys; sys.exit(3)", "cannot be imported: SystemExit"),
    "no class": ("Faulty = 7", "is not a class derived from rtpipe.Plugin"),
    "made": (
        "from rtpipe import Plugin\nclass Faulty(Plugin[None, None]):\n  def __init__(self, *a): 1 / 0",
        "cannot be made: ZeroDivisionError",
    ),
    "taken": (
        "from rtpipe import Plugin, Route\nclass Faulty(Plugin[None, None]):\n"
        "  def routes(self): return [Route('GET', '/healthz', None)]",
        "the route GET /healthz is taken",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_plugin_that_keeps_the_daemon_from_starting(file, plugin, what):
    source, says = BROKEN[what]
    environment = plugin(source)
    told = await failed(file(chain=CHAIN), environment=environment)
    assert told[-1].startswith("rtpipe: ")
    assert "plugin faulty" in told[-1]
    assert says in told[-1]
    # The guard's own line, where it was the guard that found out, and ours: nothing else, no traceback.
    assert len(told) <= 2
    assert all("plugin faulty" in line for line in told)


async def test_a_plugin_that_hangs_in_shutdown_ends_with_its_limit(file, plugin):
    body = "print('still here', flush=True); await trio.sleep(0); raise SystemExit(9)"
    environment = plugin(FAILING.format(hook="shutdown", arguments="", body=body))
    async with scripted() as model, running(file(model.url, chain=CHAIN), environment=environment) as gateway:
        async with client(gateway.address) as app:
            await app.receive()
        gateway.signal()
        assert await gateway.exited() == 0
        assert "still here" in gateway.out
