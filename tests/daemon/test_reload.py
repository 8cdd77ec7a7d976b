"""A reload: a new chain for new sessions, all or nothing."""

import logging
import signal

import msgspec
import pytest
import trio

from rtpipe import Health, Plugin, Response, Route, Secret, on_client
from rtpipe.daemon import config_load
from tests.daemon.kit import CREATED, KEY, UPSTREAM_KEY, bearer, client, refused, running, scripted
from tests.daemon.lines import ask, asked, reloadable
from tests.daemon.wire import WAIT_S, get

calls = []


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mark: str
    token: Secret | None = None


class Marker(Plugin[Options, None]):
    """Leaves its mark on response.create, and notes its life."""

    def __init__(self, config, host):
        super().__init__(config, host)
        self.mark = config.mark
        calls.append(f"make {self.mark}")
        self.start_soon(self.work)

    async def work(self):
        try:
            await trio.sleep_forever()
        finally:
            calls.append(f"work ends {self.mark}")

    async def startup(self):
        if self.mark == "broken":
            raise OSError("there is no such thing")
        calls.append(f"start {self.mark}")

    async def shutdown(self):
        calls.append(f"stop {self.mark}")

    @on_client("response.create")
    def leave_mark(self, session, event):
        marks = event.data.get("response", {}).get("instructions", "") + f" {self.mark}"
        return event.replace({**event.data, "response": {"instructions": marks}})

    def routes(self):
        async def show(request, body):
            return Response(200, {"mark": self.mark})

        return [Route("GET", f"/{self.mark}", show, access="open")]

    def health(self):
        return Health(ok=True, sentence=f"marked {self.mark}")


@pytest.fixture(autouse=True)
def marker(monkeypatch):
    """The plugin, under several names."""
    calls.clear()
    load_plugin = config_load.load_plugin

    def load(name):
        return Marker if name.startswith("mark") else load_plugin(name)

    monkeypatch.setattr(config_load, "load_plugin", load)


@pytest.fixture
def marked(file, place):
    """Write a configuration with two marking stages and an admin socket."""

    def write(url="ws://127.0.0.1:9/v1/realtime"):
        more = f'[admin]\nsocket = "{place}"\n[plugins.mark]\nmark = "a"\n[plugins.mark2]\nmark = "fixed"\n'
        return file(url, chain=("auth", "mark", "mark2"), more=more)

    return write


async def marks(app, upstream):
    """What the chain of this session does to a response.create."""
    await app.tell("response.create")
    return (await upstream.event())["response"]["instructions"].split()


async def until(condition):
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - plugins know of no events of ours
            await trio.sleep(0.01)


async def test_a_session_keeps_its_chain_and_a_new_one_has_the_new(marked, place):
    async with scripted() as model, reloadable(marked(model.url)) as gateway:
        async with client(gateway.address, headers=bearer()) as old:
            first = await model.next()
            assert await old.receive() == CREATED
            kept = gateway.process.chain.stages[2].plugin
            gateway.change('mark = "a"', 'mark = "b"')
            report = await asked(place, "/reload", "POST")
            assert report == {
                "changed": ["plugins.mark.mark"],
                "diff": ['plugins.mark.mark: "a" -> "b"'],
                "at_next_start": [],
                "chain": ["auth", "mark", "mark2"],
                "new_plugins": ["mark"],
                "sessions_on_old_chain": 1,
                "warnings": [],
            }
            assert gateway.process.chain.stages[2].plugin is kept
            async with client(gateway.address) as new:
                second = await model.next()
                assert await new.receive() == CREATED
                assert await marks(new, second) == ["b", "fixed"]
                assert await marks(old, first) == ["a", "fixed"]
                about = (await asked(place, "/sessions"))["sessions"]
                assert [each["on_old_chain"] for each in about] == [True, False]
            assert "stop a" not in calls
            await old.close()
        await until(lambda: "work ends a" in calls)
        assert calls == [
            "make a",
            "make fixed",
            "start a",
            "start fixed",
            "make b",
            "start b",
            "stop a",
            "work ends a",
        ]
        assert (await get(gateway.address, "/b")).status == 200
        assert (await get(gateway.address, "/a")).status == 404
    assert [call for call in calls[8:] if call.startswith("stop")] == ["stop fixed", "stop b"]
    assert calls.count("stop a") == 1


async def test_nothing_changed_and_one_stage_less(marked, place):
    async with reloadable(marked()) as gateway:
        chain = gateway.process.chain
        report = await asked(place, "/reload", "POST")
        assert (report["changed"], report["new_plugins"], gateway.process.chain) == ([], [], chain)
        gateway.change('"mark","mark2"', '"mark2"')
        report = await asked(place, "/reload", "POST")
        assert report["changed"] == ["chain"]
        assert report["chain"] == ["auth", "mark2"]
        (warning,) = report["warnings"]
        assert "plugins.mark: no stage of the chain has this name" in warning
        await until(lambda: "stop a" in calls)
        gateway.change('"mark2"', '"mark2", "mark"')
        assert (await asked(place, "/reload", "POST"))["new_plugins"] == ["mark"]
        assert calls[-2:] == ["make a", "start a"]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('mark = "a"', 'mrak = "b"', ":23: plugins.mark.mrak: unknown option (did you mean mark?)"),
        ('mark = "a"', 'mark = "broken"', "plugin mark does not start: OSError"),
        ('mark = "a"', 'mark = "fixed"', "plugin mark2: the route GET /fixed is taken"),
        ('mark = "a"', 'mark = "b"\ntoken = { env = "TEST_NO_TOKEN" }', "TEST_NO_TOKEN"),
        ("chain =", "chain ==", ":1: not valid TOML"),
        ('"mark2"]', '"none"]', ":1: chain[2]: plugin none is not installed"),
        ('["auth",', "[", ":4: listen[0]: no stage of the chain authenticates callers"),
    ],
)
async def test_a_mistake_changes_nothing(marked, place, caplog, old, new, what):
    async with scripted() as model, reloadable(marked(model.url)) as gateway:
        before, lived = gateway.process.generation, list(calls)
        gateway.change(old, new)
        answer = await ask(place, "/reload", "POST")
        assert answer.status == 422
        assert what in answer.error["message"]
        assert "\n" not in answer.error["message"]
        (record,) = [
            each for each in caplog.records if each.levelno == logging.ERROR and "reload" in each.msg
        ]
        assert answer.error["message"] in record.getMessage()
        assert gateway.process.generation is before
        assert "stop a" not in calls[len(lived) :]
        async with client(gateway.address) as app:
            upstream = await model.next()
            assert await app.receive() == CREATED
            assert await marks(app, upstream) == ["a", "fixed"]
    # Whatever was made in vain is gone as well.
    assert sorted(c for c in calls if c.startswith("stop")) in (
        ["stop a", "stop fixed"],
        ["stop a", "stop fixed", "stop fixed"],
    )


async def test_doors_wait_for_the_next_start(marked, place):
    async with reloadable(marked()) as gateway:
        gateway.change('address = "127.0.0.1:0"', 'address = "127.0.0.1:1"\nopen = true')
        gateway.change("[limits]\n", "[limits]\nmax_message_bytes = 70_000\nmax_sessions = 7\n")
        report = await asked(place, "/reload", "POST")
        assert report["at_next_start"] == [
            "listen[0].address",
            "listen[0].open",
            "limits.max_message_bytes",
        ]
        assert set(report["changed"]) == {*report["at_next_start"], "limits.max_sessions"}
        config = gateway.process.config
        assert (config.limits.max_sessions, config.limits.max_message_bytes) == (7, 16 * 1024 * 1024)
        assert (await refused(gateway.address, headers=[])).status == 401
        # The running door is not open, so the chain cannot lose who authenticates.
        gateway.change('["auth",', "[")
        answer = await ask(place, "/reload", "POST")
        assert answer.status == 422
        assert "restart instead" in answer.error["message"]


async def test_no_secret_is_in_any_answer(marked, place, monkeypatch):
    monkeypatch.setenv("TEST_TOKEN", "sk-of-the-plugin")
    async with reloadable(marked()) as gateway:
        gateway.change('mark = "a"', 'mark = "sk-inline"\ntoken = { env = "TEST_TOKEN" }')
        gateway.change("old-model", "sk-alias")
        said = b""
        for target, method in (
            ("/reload", "POST"),
            ("/plugins", "GET"),
            ("/sessions", "GET"),
            ("/metrics", "GET"),
        ):
            said += (await ask(place, target, method)).rest
        gateway.change('mark = "sk-inline"', 'mark = "sk-inline"\nsecret = "sk-misplaced"')
        said += (await ask(place, "/reload", "POST")).rest
    assert b"plugins.mark.token" in said
    assert b"plugins.mark.secret: unknown option" in said
    for secret in (KEY, UPSTREAM_KEY, "sk-of-the-plugin", "sk-misplaced"):
        assert secret.encode() not in said


async def test_a_signal_reloads(file):
    path = file()
    async with running(path) as gateway:
        text = path.read_text()
        model = text.partition('default_model = "')[2].partition('"')[0]
        path.write_text(text.replace('default_model = "', 'default_model = "new-'))
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.said(
            f'reload: changed: upstream[0].default_model: "{model}" -> "new-{model}"; '
            "at the next start: nothing"
        )
        good = path.read_text()
        path.write_text("chain = [")
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.said(f"reload: nothing has changed: {path}:1: not valid TOML")
        path.write_text(good)
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.said("reload: changed: nothing", times=1)
        gateway.err = gateway.err.replace("ERROR", "")  # it was meant


async def test_sessions_in_the_making_are_not_disturbed(marked, place):
    """Reloads one after the other while sessions come and go; every plugin is shut down once."""
    async with scripted() as model, reloadable(marked(model.url)) as gateway:

        async def come_and_go():
            for _ in range(10):
                async with client(gateway.address) as app:
                    await app.receive()

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(come_and_go)
            for i in range(10):
                gateway.change(f'mark = "{"abcdefghijk"[i]}"', f'mark = "{"abcdefghijk"[i + 1]}"')
                await asked(place, "/reload", "POST")
        assert model.url
    for mark in "abcdefghijk":
        assert calls.count(f"start {mark}") == calls.count(f"stop {mark}") == 1
