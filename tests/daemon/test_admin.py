"""The admin socket: what runs, told in JSON and to Prometheus."""

import json
import os
import re
import stat
from pathlib import Path

import jsonschema
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.kit import CREATED, client, failed, meeting, refused, running, scripted
from tests.daemon.lines import ask, asked, reloadable, speaking
from tests.daemon.wire import WAIT_S

RUN = ("--sim", "--sim-pace", "0")


@pytest.fixture
def admin(file, place):
    """Write a configuration with an admin socket at *place*, and return its path."""

    def write(*args, group="", **kwargs):
        return file(*args, more=f'[admin]\nsocket = "{place}"\n{group}', **kwargs)

    return write


async def scrape(place):
    """The samples, by name and labels."""
    answer = await ask(place, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.rest.decode())
        for sample in family.samples
    }


async def test_sessions(admin, place):
    async with scripted() as model, reloadable(admin(model.url)) as gateway:
        assert await asked(place, "/sessions") == {"sessions": []}
        async with client(gateway.address, "/v1/realtime?model=old-model") as app:
            upstream = await model.next()
            assert await app.receive() == CREATED
            await app.tell("response.cancel")
            await app.tell("made.up")
            for _ in range(2):
                await upstream.receive()
            (session,) = (await asked(place, "/sessions"))["sessions"]
            assert session.pop("id").startswith("sess_")
            assert 0 <= session.pop("age_s") < WAIT_S
            up = len(b'{"type":"response.cancel"}{"type":"made.up"}')
            assert session == {
                "principal": "app",
                "model": "new-model",
                "upstream": "model",
                "listener": "127.0.0.1:0",
                "client_attached": True,
                "on_old_chain": False,
                "events": {
                    "upstream": {"came": 2, "delivered": 2},
                    "downstream": {"came": 1, "delivered": 1},
                },
                "waiting": {"upstream": 0, "downstream": 0},
                "bytes": {"upstream": up, "downstream": len(CREATED)},
            }
            (name,) = gateway.process.served
            one = await asked(place, f"/sessions/{name}")
            assert one["types"]["upstream"]["made.up"] == {"events": 1, "bytes": 18}
            answer = await ask(place, "/sessions/sess_none")
            assert (answer.status, answer.error["code"]) == (404, "no_such_session")


async def test_it_answers_as_its_document_says(admin, place):
    """Every operation of `config/admin.openapi.json`, and no other."""
    document = json.loads((Path(__file__).parents[2] / "config" / "admin.openapi.json").read_text("utf-8"))
    seen = set()
    chain = ("auth", "response-lock")
    async with scripted() as model, reloadable(admin(model.url, chain=chain)) as gateway:
        async with meeting(gateway, model) as (app, upstream):
            await app.tell("response.cancel")
            await upstream.receive()
            (name,) = gateway.process.served
            for path, methods in document["paths"].items():
                parameters = methods.pop("parameters", [])
                names = [each["name"] for each in parameters if each["in"] == "path"]
                assert names == re.findall(r"\{(\w+)\}", path)
                query = "?name=nobody" if len(names) < len(parameters) else ""
                answer = await ask(place, path.format(id=name), "PATCH")
                assert answer.headers["allow"] == ", ".join(method.upper() for method in methods)
                _check_answer(document, methods["get" if "get" in methods else "post"], answer)
                for method in sorted(methods, key=["get", "post", "delete"].index):
                    if (method, path) != ("post", "/drain"):
                        answer = await ask(place, path.format(id=name) + query, method.upper())
                        seen.add(_check_answer(document, methods[method], answer))
        drained = await ask(place, "/drain", "POST")
        seen.add(_check_answer(document, document["paths"]["/drain"]["post"], drained))
        assert gateway.process.stopping
    assert seen == {"200", "404"}  # nothing is written of nobody


def _check_answer(document, operation, answer):
    status = str(answer.status) if str(answer.status) in operation["responses"] else "default"
    (kind,) = operation["responses"][status]["content"]
    assert answer.headers["content-type"] == kind
    if kind == "application/json":
        (schema,) = operation["responses"][status]["content"].values()
        # What a struct does not name would be an answer that is not documented.
        strict = json.loads(json.dumps({**schema["schema"], "components": document["components"]}))
        for part in strict["components"]["schemas"].values():
            if "properties" in part and "additionalProperties" not in part:
                part["additionalProperties"] = False
        jsonschema.validate(json.loads(answer.rest), strict)
    return status


async def test_plugins(admin, place):
    async with reloadable(admin(chain=("auth", "response-lock"))) as gateway:
        gateway.process.guard.failed("auth", "fact", "ValueError", "why")
        gateway.process.guard.failed("auth", "fact", "KeyError", "why")
        plugins = (await asked(place, "/plugins"))["plugins"]
        assert [(each["stage"], each["plugin"], each["failures"]) for each in plugins] == [
            ("auth", "auth", {"fact": 2}),
            ("response-lock", "response-lock", {}),
        ]
        assert all(each["on_error"] in ("close", "drop", "pass") for each in plugins)
        assert all(each["health"] is None or each["health"]["sentence"] for each in plugins)


@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("GET", "/v1/realtime", 404, None),
        ("GET", "/sessionsx", 404, None),
        ("POST", "/sessions", 405, "GET"),
        ("POST", "/sessions/x", 405, "GET, DELETE"),
        ("DELETE", "/sessions/x", 404, None),
        ("GET", "/reload", 405, "POST"),
    ],
)
async def test_what_is_not_there(admin, place, method, target, status, allow):
    async with reloadable(admin()):
        answer = await ask(place, target, method)
        assert answer.status == status
        assert answer.error["message"]
        assert answer.headers.get("allow") == allow


async def test_metrics(admin, place):
    async with scripted() as model, reloadable(admin(model.url)) as gateway:
        before = await scrape(place)
        assert before["rtpipe_build_info", "0.1.0"] == 1
        assert before["rtpipe_sessions",] == before["rtpipe_sessions_opened_total",] == 0
        assert (await refused(gateway.address, headers=[])).status == 401
        gateway.process.guard.failed("auth", "fact", "ValueError", "why")
        async with client(gateway.address) as app:
            upstream = await model.next()
            await app.receive()
            await app.tell("response.cancel")
            for i in range(300):
                await app.tell(f"made.up.{i}")
            for _ in range(301):
                await upstream.receive()
            during = await scrape(place)
            await app.close()
            with trio.fail_after(WAIT_S):
                await gateway.process.empty()
        after = await scrape(place)
    assert during["rtpipe_sessions",] == 1
    assert during["rtpipe_upstream_events_total", "response.cancel", "upstream"] == 1
    assert during["rtpipe_upstream_events_total", "other", "upstream"] == 300
    assert during["rtpipe_upstream_bytes_total", "downstream", "session.created"] == len(CREATED)
    assert during["rtpipe_events_total", "delivered", "upstream"] == 301
    assert during["rtpipe_held_events", "upstream"] == 0
    assert during["rtpipe_plugin_failures_total", "auth", "fact"] == 1
    assert during["rtpipe_connections_refused_total", "missing_api_key"] == 1
    assert len([key for key in during if not key[0].startswith("rtpipe_loop_lag_seconds")]) < 40
    assert (after["rtpipe_sessions",], after["rtpipe_sessions_opened_total",]) == (0, 1)
    assert after["rtpipe_sessions_ended_total", "1000", "client"] == 1
    # What was counted stays counted when its session is gone.
    counters = [key for key in during if key[0].endswith("_total")]
    assert all(after[key] >= during[key] for key in counters)


async def test_only_taps_speak_json_lines(admin, place):
    async with reloadable(admin()):
        for role, status in (("session", 404), ("tools", 404), ("admin", 400)):
            async with speaking(place, role=role) as lines:
                (answer,) = await lines.rest()
                assert (answer["type"], answer["status"]) == ("rtpipe.refused", status)
        async with speaking(place, role="tap", session="sess_none") as lines:
            assert (await lines.next())["code"] == "no_such_session"
        async with speaking(place, role="tap") as lines:
            assert await lines.next() == {
                "type": "rtpipe.welcome",
                "principal": f"uid {os.getuid()}",
                "session": None,
                "version": 1,
            }


async def test_it_answers_while_the_daemon_stops(admin, place):
    async with scripted() as model, running(admin(model.url)) as gateway:
        async with client(gateway.address) as stubborn, speaking(place, role="tap") as tap:
            await stubborn.receive()  # and does not answer the close frame
            assert (await tap.next())["type"] == "rtpipe.welcome"
            gateway.signal()
            await gateway.said("SIGTERM: stopping")
            assert (await scrape(place))["rtpipe_sessions_opened_total",] == 1
            answer = await ask(place, "/reload", "POST")
            assert (answer.status, answer.error["message"]) == (422, "the daemon is stopping")
            assert (await tap.rest())[-1] == {
                "type": "rtpipe.closed",
                "code": 1001,
                "reason": "the gateway is stopping",
            }
        assert await gateway.exited() == 0
    assert not place.exists()
    assert "ERROR" in gateway.err  # the reload that came too late, and nothing else
    gateway.err = ""


@pytest.mark.parametrize(("group", "mode"), [("", 0o600), (f'group = "{os.getgid()}"\n', 0o660)])
async def test_who_may_open_it(admin, place, group, mode):
    async with running(admin(group=group), *RUN):
        found = place.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, os.getgid())
        assert await asked(place, "/sessions") == {"sessions": []}
    assert not place.exists()


async def test_without_the_table_there_is_none(file, place):
    async with reloadable(file()):
        assert not place.exists()


@pytest.mark.parametrize(
    ("socket", "what"),
    [
        ('"run/admin.sock"', "admin.socket: expected an absolute path, such as /run/rtpipe/rtpipe.sock"),
        (
            '"/no-such-directory/a.sock"',
            "admin.socket: cannot listen at /no-such-directory/a.sock: its directory",
        ),
        ('"{place}"\ngroup = "no-such-group"', "admin.group: there is no group no-such-group"),
        ('"{place}"\nmode = "0666"', "admin.mode: unknown option"),
        ('"{place}"\n[[listen]]\naddress = "unix:{place}"', "admin.socket: the same address as listen[1]"),
    ],
)
async def test_mistakes(file, place, socket, what):
    (line,) = await failed(file(more=f"[admin]\nsocket = {socket.format(place=place)}\n"))
    assert what in line
