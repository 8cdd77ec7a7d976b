"""What plugins add to the HTTP side of a running daemon: routes, and a word on their health."""

import pytest

from tests.daemon.kit import KEY, bearer, in_process
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
