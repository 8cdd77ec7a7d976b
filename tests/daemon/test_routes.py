"""The HTTP side of a listener: which addresses there are, and who gets past the door."""

import pytest

from tests.daemon.kit import KEY, MODEL, bearer, client, in_process, meeting, refused, running, scripted
from tests.daemon.wire import WebSocket, ask, get, knock, upgrade

SUBPROTOCOL = "Sec-WebSocket-Protocol"


def offered(key: str) -> list[tuple[str, str]]:
    """As a browser's client asks."""
    return [(SUBPROTOCOL, f"realtime, openai-insecure-api-key.{key}, openai-organization.x")]


@pytest.mark.parametrize("path", ["/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime"])
async def test_every_address_of_the_protocol(text, path):
    async with scripted() as model, in_process(text(model.url)) as gateway:
        async with meeting(gateway, model, f"{path}?model={MODEL}") as (_, upstream):
            assert upstream.head.target == f"/v1/realtime?model={MODEL}"
        answer = await get(gateway.address, path)
        assert (answer.status, answer.error["code"]) == (426, "upgrade_required")
        assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/v1/live", "GPT-Live is another protocol"),
        ("/v1/live/sessions", "GPT-Live is another protocol"),
        ("/v1/realtime/translations?model=x", "translation sessions are another protocol"),
        ("/v1/realtime/calls", "WebRTC and SIP calls go to OpenAI directly"),
        ("/v1/realtime/calls/rtc_1/accept", "WebRTC and SIP calls go to OpenAI directly"),
        ("/v1/realtime/client_secrets", "client secrets"),
        ("/", "There is nothing here"),
        ("/v1/realtime/", "There is nothing here"),
        ("/v1/livestock", "There is nothing here"),
        ("/v1/../v1/realtime", "There is nothing here"),
        ("/v1/%72ealtime", "There is nothing here"),
        ("//v1/realtime", "There is nothing here"),
        ("/healthz/", "There is nothing here"),
    ],
)
async def test_what_is_not_here_says_so(text, target, says):
    async with in_process(text()) as gateway:
        for answer in (
            await get(gateway.address, target, method="POST"),
            await get(gateway.address, target, bearer()),
            await refused(gateway.address, target),
        ):
            assert answer.status == 404
            assert says in answer.error["message"]


async def test_a_call_id_is_for_another_kind_of_session(text):
    async with in_process(text()) as gateway:
        answer = await refused(gateway.address, "/v1/realtime?call_id=rtc_1")
        assert (answer.status, answer.error["code"]) == (404, "call_id_not_found")
        assert "WebRTC and SIP" in answer.error["message"]


async def test_health(text):
    async with in_process(text()) as gateway:
        answer = await get(gateway.address, "/healthz")
        assert answer.status == 200
        assert answer.rest == b'{"ok":true,"plugins":{"auth":"1 key is let in"}}'
        assert (await get(gateway.address, "/readyz")).rest == b'{"ready":true}'
        gateway.process.stopping = True
        answer = await get(gateway.address, "/readyz")
        assert (answer.status, answer.rest) == (503, b'{"ready":false}')


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"), 426),
        (("Sec-WebSocket-Key: ", "X-Key: "), 400),
        (("Host: gateway.test", "X-Host: x"), 400),
        (("Upgrade: websocket", "Upgrade: h2c"), 426),
        (("GET ", "POST "), 426),
        (("GET /", "GET http://x/"), 400),
    ],
)
async def test_handshakes_that_are_none(text, broken, status):
    async with in_process(text()) as gateway:
        raw = upgrade("/v1/realtime", bearer())
        changed = raw.replace(broken[0].encode(), broken[1].encode())
        assert changed != raw
        answer = await ask(gateway.address, changed)
        assert answer.status == status
        assert answer.error["message"]


@pytest.mark.parametrize(
    ("target", "headers", "status", "code"),
    [
        ("", [], 401, "missing_api_key"),
        ("", bearer("sk-wrong"), 401, "invalid_api_key"),
        ("", bearer(KEY + "x"), 401, "invalid_api_key"),
        ("", bearer(KEY[:-1]), 401, "invalid_api_key"),
        ("", [("Authorization", f"Basic {KEY}")], 401, "malformed_authorization"),
        ("", [("Authorization", "Bearer")], 401, "malformed_authorization"),
        ("", [("api-key", "sk-wrong")], 401, "invalid_api_key"),
        ("", [("api-key", "\xe9")], 401, "invalid_api_key"),
        ("", [*bearer(), ("api-key", "another")], 400, "several_api_keys"),
        ("", [*bearer(), *bearer("another")], 400, "several_api_keys"),
        (f"?api-key={KEY}", bearer(), 400, "api_key_in_query"),
        (f"?token={KEY}", [], 400, "api_key_in_query"),
    ],
)
async def test_who_does_not_get_in(text, target, headers, status, code):
    async with in_process(text()) as gateway:
        answer = await refused(gateway.address, "/v1/realtime" + target, headers)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.error["type"] == "invalid_request_error"
        assert KEY.encode() not in answer.rest
        assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_browser_gets_in_by_subprotocol(text):
    async with scripted() as model, in_process(text(model.url)) as gateway:
        async with meeting(gateway, model, headers=offered(KEY)) as (app, upstream):
            assert app.head.headers["sec-websocket-protocol"] == "realtime"
            assert KEY not in str(app.head)
            assert "sec-websocket-protocol" not in upstream.head.headers
        # Without `realtime` among its offers it is answered without any.
        only_key = [(SUBPROTOCOL, f"openai-insecure-api-key.{KEY}")]
        async with meeting(gateway, model, headers=only_key) as (app, _):
            assert "sec-websocket-protocol" not in app.head.headers
        async with meeting(gateway, model, headers=[*bearer(), (SUBPROTOCOL, "realtime")]) as (app, _):
            assert app.head.headers["sec-websocket-protocol"] == "realtime"


@pytest.mark.parametrize(
    ("target", "headers", "code", "close"),
    [
        ("", offered("sk-wrong"), "invalid_api_key", 3000),
        ("", [*offered(KEY), ("api-key", "another")], "several_api_keys", 3000),
        ("?call_id=rtc_1", offered(KEY), "call_id_not_found", 3000),
        ("", offered(KEY), "upstream_unreachable", 1013),
    ],
)
async def test_a_browser_is_told_over_the_websocket(text, target, headers, code, close):
    """1013 makes clients try again, so it is for what may pass."""
    async with in_process(text()) as gateway:
        app = await knock(gateway.address, "/v1/realtime" + target, headers)
        assert isinstance(app, WebSocket)
        assert app.head.headers["sec-websocket-protocol"] == "realtime"
        events, end = await app.ended()
        assert [event["type"] for event in events] == ["error"]
        assert events[0]["error"]["code"] == code
        assert (end.code, end.reason) == (close, f"invalid_request_error.{code}")
        assert KEY not in str(app.head) + str(events) + str(end)


async def test_origins(text):
    listen = 'origins = ["https://app.example"]'
    async with scripted() as model, in_process(text(model.url, listen=listen)) as gateway:
        async with meeting(gateway, model, headers=[*bearer(), ("Origin", "https://app.example")]):
            pass
        evil = ("https://app.example.evil", "http://app.example", "null", "", "https://APP.example:1")
        both = [("Origin", "https://app.example"), ("Origin", "https://evil.example")]
        for origins in (*([("Origin", origin)] for origin in evil), both):
            for credentials in (bearer(), offered(KEY), offered("sk-wrong")):
                answer = await refused(gateway.address, headers=[*credentials, *origins])
                assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed"), origins


async def test_any_origin(text):
    headers = [*bearer(), ("Origin", "https://any.example")]
    async with (
        scripted() as model,
        in_process(text(model.url, listen='origins = ["*"]')) as gateway,
        meeting(gateway, model, headers=headers),
    ):
        pass


async def test_an_open_door_beside_a_closed_one(text):
    """Each listener keeps its own rules, also where both have the same address with port 0."""
    more = '[[listen]]\nname = "open"\naddress = "127.0.0.1:0"\nopen = true\norigins = ["*"]'
    async with scripted() as model, in_process(text(model.url, more=more)) as gateway:
        closed, opened = gateway.addresses
        async with client(opened, headers=[("Origin", "https://any.example")]) as app:
            await app.receive()
        assert (await refused(closed, headers=[])).status == 401
        assert (await refused(closed, headers=[*bearer(), ("Origin", "https://any.example")])).status == 403


async def test_a_process_answers_the_same(file):
    async with running(file(), "--sim", "--sim-pace", "0") as gateway:
        assert (await get(gateway.address, "/healthz")).status == 200
        assert (await refused(gateway.address, headers=[])).status == 401
        assert (await refused(gateway.address, "/v1/live")).status == 404
        async with client(gateway.address, headers=offered(KEY)) as app:
            assert (await app.event())["type"] == "session.created"
