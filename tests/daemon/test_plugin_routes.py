"""What plugins add to the HTTP side of a running daemon: routes, and a word on their health."""

from functools import partial

import pytest
import trio

from rtpipe.api.facts import Refused
from rtpipe.cli.main import main
from tests.daemon.kit import KEY, bearer, in_process
from tests.daemon.lines import ask as ask_admin
from tests.daemon.lines import asked, reloadable
from tests.daemon.plugins import FAILING, lines
from tests.daemon.wire import ask, get


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
from rtpipe import Command, Plugin, Response, Route

class Pages(Plugin[None, None]):
    @classmethod
    def commands(cls):
        ask = lambda args: print(args.ask("POST", "/admins")) or 0
        return [Command("admins", "ask", lambda parser: None, ask, asks_daemon=True)]

    def routes(self):
        return [
            Route("GET", "/mine", self.mine, access="open"),
            Route("POST", "/mine", self.echo),
            Route("GET", "/bad", self.bad, access="open"),
            Route("POST", "/admins", self.mine, access="admin"),
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
        answer = await get(gateway.address, "/admins", sized, "POST")
        assert (answer.status, answer.error["code"]) == (403, "role_not_allowed")
        assert (await get(gateway.address, "/v1/realtime/client_secrets", sized, "POST")).status == 200


async def test_pages_that_may_not_connect_have_no_routes_either_and_refusals_are_facts(text, plugin):
    plugin(ROUTES, "pages")
    seen = []
    listen = 'origins = ["https://app.example"]'
    async with in_process(text(chain=["auth", "pages"], listen=listen)) as gateway:
        gateway.process.observer = seen.append
        for path, method in (("/mine", "GET"), ("/mine", "POST"), ("/admins", "POST")):
            foreign = [*bearer(), ("Origin", "https://evil.example"), ("Content-Length", "0")]
            answer = await get(gateway.address, path, foreign, method)
            assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
        ours = [*bearer(), ("Origin", "https://app.example"), ("Content-Length", "0")]
        assert (await get(gateway.address, "/mine", ours, "POST")).status == 201
        assert (await get(gateway.address, "/mine", method="POST")).status == 401
    refused = [fact for fact in seen if isinstance(fact, Refused)]
    assert [(fact.stage, fact.code) for fact in refused] == [
        *[("host", "origin_not_allowed")] * 3,
        ("host", "missing_api_key"),
    ]
    assert {fact.address for fact in refused} == {"127.0.0.1"}


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


async def test_routes_for_admins_are_on_the_admin_socket_and_open_to_admins_alone(
    file, plugin, place, capsys
):
    plugin(ROUTES, "pages")
    admin = f'[admin]\nsocket = "{place}"\n'
    async with reloadable(file(chain=["auth", "pages"], more=admin)):
        assert await asked(place, "/admins?x=1", "POST") == {"path": "/admins"}
        assert (await ask_admin(place, "/mine")).status == 404
        assert (await ask_admin(place, "/admins")).status == 404
        verb = partial(main, ["admins", "--socket", str(place)])
        assert await trio.to_thread.run_sync(verb) == 0
    assert capsys.readouterr().out == "{'path': '/admins'}\n"
    assert main(["admins", "--socket", str(place)]) == 1
    assert "no socket at" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/sessions", "/healthz"])
async def test_a_route_of_the_host_is_not_for_plugins(text, plugin, path):
    plugin(ROUTES.replace("/admins", path), "pages")
    with pytest.raises(ExceptionGroup) as raised:
        async with in_process(text(chain=["auth", "pages"])):
            pass
    assert f"plugin pages: the route POST {path} is taken" in str(raised.value.exceptions[0])
