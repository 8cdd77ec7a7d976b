"""Plugins that misbehave in a running daemon: contained by their policy, named once, nobody else hurt."""

import pytest

from tests.daemon.kit import client, failed, in_process, meeting, refused, running, scripted
from tests.daemon.plugins import BODIES, FAILING, lines, named
from tests.daemon.wire import get

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


async def test_a_refusal_that_http_cannot_carry_is_its_plugins_failure(text, plugin, caplog):
    body = 'raise Refused(999, "co\\nde", "mess\\nage", {"X-Évil\\r\\n": "\\r\\n\\r\\n"})'
    plugin(FAILING.format(hook="authenticate", arguments="request", body=body))
    async with in_process(text(chain=["faulty"])) as gateway:
        answer = await refused(gateway.address)
        assert answer.status == 503
        assert "x-évil" not in answer.headers
    assert any("plugin faulty: authenticate: ValueError" in line for line in lines(caplog))


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


KEEPER = """
from rtpipe import Plugin

class Keeper(Plugin[None, None]):
    async def startup(self):
        await self.store.counter("k")
        self.start_soon(self.linger)

    async def linger(self):
        import trio
        await trio.sleep_forever()
"""


async def test_what_started_is_put_away_when_another_fails(file, plugin):
    plugin(KEEPER, "keeper")
    environment = plugin(FAILING.format(hook="startup", arguments="", body=BODIES["raise"]))
    told = await failed(file(chain=["auth", "keeper", "faulty"]), environment=environment)
    assert all("plugin faulty" in line for line in told)


async def test_a_state_directory_that_a_plugin_needs(file, plugin, tmp_path):
    (tmp_path / "state").write_text("a file")
    environment = plugin(KEEPER, "keeper")
    told = await failed(file(chain=["keeper"], listen="open = true"), environment=environment)
    assert "plugin keeper does not start" in told[-1]


@pytest.mark.parametrize(
    "change",
    ["request.url = 'http://x'", "request.url = 7", "request.headers['X'] = 7", "request.headers = 7"],
)
async def test_a_dial_that_a_plugin_spoils(text, plugin, caplog, change):
    plugin(FAILING.format(hook="upstream_dial", arguments="session, request", body=change))
    async with scripted() as model, in_process(text(model.url, chain=CHAIN)) as gateway:
        assert (await refused(gateway.address)).status == 502
    assert not [record for record in caplog.records if record.exc_info]
