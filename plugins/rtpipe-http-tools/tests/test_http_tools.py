"""The plugin against endpoints on this machine, that do as the test says."""

import logging
import tomllib
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel

from rtpipe import ConfigError, HookFailed, ToolCall
from rtpipe.testing import ChainHarness
from rtpipe_http_tools import Config, HttpTools
from rtpipe_http_tools.plugin import CONNECTIONS

OBJECT = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
SAMPLE = Path(__file__).parents[1] / "sample.toml"


class Site:
    """An HTTP/1.1 server: what it was asked, and how often somebody connected."""

    def __init__(self):
        self.requests = []
        self.connections = 0
        self.open = self.most_open = 0
        self.answer = ok(b"sunny")
        self.goes_on = trio.Event()
        self.goes_on.set()

    async def handle(self, stream):
        self.connections += 1
        data = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some()
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                line, *fields = head.decode().split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)
                }
                while len(data) < int(headers.get("content-length", 0)):
                    data += await stream.receive_some()
                length = int(headers.get("content-length", 0))
                body, data = data[:length], data[length:]
                self.requests.append((line.removesuffix(" HTTP/1.1"), headers, body))
                self.open += 1
                self.most_open = max(self.open, self.most_open)
                await self.goes_on.wait()
                self.open -= 1
                await stream.send_all(self.answer)


def ok(body, status="200 OK", *headers):
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def site():
    served = Site()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        served.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(partial(trio.serve_listeners, served.handle, [listener]))
        yield served
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def asking(served, path="/weather", **options):
    """The tool ``ask`` at *served*, and a function that calls it with arguments."""
    endpoint = {"url": served.url + path, "description": "Asks.", **options}
    async with ChainHarness({"http-tools": (HttpTools, {"tools": {"ask": endpoint}})}) as chain:
        view = chain.session.view("http-tools")

        async def ask(arguments, name="ask", timeout_s=5.0):
            text = msgspec.json.encode(arguments).decode()
            return await view.answer_tool(ToolCall(call_id="c", name=name, arguments=text), timeout_s)

        ask.chain = chain
        yield ask


async def test_a_tool_is_offered_and_answers():
    async with site() as served, asking(served, parameters=OBJECT) as ask:
        (tool,) = await ask.chain.session.view("http-tools").offered_tools()
        assert (tool.name, tool.description, tool.parameters) == ("ask", "Asks.", OBJECT)
        assert await ask({"city": "Oslo", "days": 2}) == "sunny"
        ((line, headers, body),) = served.requests
        assert (line, body) == ("POST /weather", b'{"city":"Oslo","days":2}')
        assert headers["content-type"] == "application/json"
        assert headers["accept-encoding"] == "identity"


async def test_another_tool_is_not_its_business():
    async with site() as served, asking(served) as ask:
        assert await ask({}, name="other") is None


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_arguments_in_the_query(method):
    async with site() as served, asking(served, "/weather?units=metric", method=method) as ask:
        arguments = {"city": "São & co", "days": 2, "hot": True, "no": None, "of": [1, 2], "at": {"x": 1}}
        await ask(arguments)
        ((line, _, body),) = served.requests
        expected = "city=S%C3%A3o+%26+co&days=2&hot=true&of=1&of=2&at=%7B%22x%22%3A1%7D"
        assert line == f"{method} /weather?units=metric&{expected}"
        assert body == b""


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_arguments_in_the_body(method):
    async with site() as served, asking(served, method=method) as ask:
        await ask({"city": "Oslo"})
        assert [(line, body) for line, _, body in served.requests] == [
            (f"{method} /weather", b'{"city":"Oslo"}')
        ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("Oslo", "/in/Oslo/now"),
        ("a/../b?c#d", "/in/a%2F..%2Fb%3Fc%23d/now"),
        ("São", "/in/S%C3%A3o/now"),
        ("%2e%2e", "/in/%252e%252e/now"),
        (7, "/in/7/now"),
    ],
)
async def test_an_argument_in_the_path_stays_in_its_place(value, path):
    async with site() as served, asking(served, "/in/{city}/now", method="GET", parameters=OBJECT) as ask:
        await ask({"city": value, "days": 1})
        assert served.requests[0][0] == f"GET {path}?days=1"


@pytest.mark.parametrize(
    "arguments", [{}, {"city": None}, {"city": ["x"]}, {"city": ".."}, {"city": "."}, {"city": ""}]
)
async def test_an_argument_that_cannot_stand_in_the_path_is_asked_for_again(arguments):
    async with site() as served, asking(served, "/in/{city}/now", parameters=OBJECT) as ask:
        answer = msgspec.json.decode(await ask(arguments))
        assert (answer["status"], answer["retry"]) == ("error", "now")
        assert "city" in answer["error"]
        assert served.requests == []


@pytest.mark.parametrize(
    ("path", "result"),
    [("now.text", '"sunny"'), ("hits.1", "2"), ("now", '{"text":"sunny"}'), ("none", "null")],
)
async def test_what_of_an_answer_is_the_result(path, result):
    async with site() as served, asking(served, result=path) as ask:
        served.answer = ok(b'{"now": {"text": "sunny"}, "hits": [1, 2], "none": null}')
        assert await ask({}) == result


@pytest.mark.parametrize(
    ("status", "retry"),
    [
        ("400 Bad", "no"),
        ("404 Not Found", "no"),
        ("409 Conflict", "no"),
        ("422 No", "no"),
        ("429 Slow", "later"),
    ],
)
async def test_what_the_model_may_speak_of(status, retry):
    async with site() as served, asking(served) as ask:
        served.answer = ok(b"SELECT * FROM secrets", status)
        answer = await ask({})
        assert msgspec.json.decode(answer)["retry"] == retry
        assert "SELECT" not in answer
        assert served.url.partition("//")[2] not in answer


@pytest.mark.parametrize(
    ("answer", "options", "why"),
    [
        (ok(b"", "302 Found", "Location: http://127.0.0.1:9/"), {}, "answered 302"),
        (ok(b"", "401 No"), {}, "answered 401"),
        (ok(b"", "500 No"), {}, "answered 500"),
        (ok(b"x" * 11), {"max_response_bytes": 10}, "more than 10 bytes"),
        (ok(b"x", "200 OK", "Content-Encoding: gzip"), {}, "compressed"),
        (ok(b"x"), {"result": "a"}, "something else than JSON"),
        (ok(b"[" * 100_000), {"result": "a"}, "something else than JSON"),
        (ok(b'{"b": 1}'), {"result": "a"}, "has no a"),
        (ok(b"[1]"), {"result": "1"}, "has no 1"),
        (b"nonsense\r\n\r\n", {}, "cannot be had"),
    ],
)
async def test_what_is_a_failure(answer, options, why):
    async with site() as served, asking(served, **options) as ask:
        served.answer = answer
        with pytest.raises(HookFailed, match=why) as failed:
            await ask({"city": "secret place"})
        assert "secret place" not in str(failed.value)
        assert len(served.requests) == 1


async def test_an_answer_as_long_as_it_may_be():
    async with site() as served, asking(served, max_response_bytes=10) as ask:
        served.answer = ok(b"x" * 10)
        assert await ask({}) == "x" * 10


async def test_nobody_there():
    async with site() as served:
        pass
    async with asking(served) as ask:
        with pytest.raises(HookFailed, match="cannot be had: ConnectError"):
            await ask({})


async def test_connections_are_kept_and_no_more_than_there_may_be():
    async with site() as served, asking(served) as ask:
        for _ in range(3):
            await ask({})
        assert served.connections == 1
        served.goes_on = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS + 5):
                nursery.start_soon(ask, {})
            while served.open < CONNECTIONS:
                await trio.lowlevel.checkpoint()
            served.goes_on.set()
        assert served.most_open == CONNECTIONS
        assert served.connections == CONNECTIONS
        assert len(served.requests) == 3 + CONNECTIONS + 5


async def test_a_call_that_is_given_up_leaves_no_connection_behind():
    async with site() as served, asking(served) as ask:
        served.goes_on = trio.Event()
        with pytest.raises(HookFailed, match=r"longer than 0\.01 s"):
            await ask({}, timeout_s=0.01)
        served.goes_on.set()
        assert await ask({}) == "sunny"


async def test_headers_and_secrets(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", "marked-token")
    monkeypatch.setenv("KEY", "marked-key")
    options = {"headers": {"X-Site": "foyer", "X-Key": {"env": "KEY"}}, "bearer": {"env": "TOKEN"}}
    async with site() as served, asking(served, method="GET", **options) as ask:
        await ask({"city": "marked-city"})
        ((_, headers, _),) = served.requests
        assert headers["authorization"] == "Bearer marked-token"
        assert (headers["x-key"], headers["x-site"]) == ("marked-key", "foyer")
    assert "marked" not in caplog.text


async def test_a_secret_that_is_not_there_is_said_at_the_start(monkeypatch):
    monkeypatch.delenv("TOKEN", raising=False)
    async with site() as served:
        with pytest.raises(ConfigError, match="no secret found in env 'TOKEN'"):
            async with asking(served, bearer={"env": "TOKEN"}):
                pass


async def test_a_secret_that_no_header_can_have(monkeypatch):
    monkeypatch.setenv("TOKEN", "two\nlines")
    async with site() as served:
        with pytest.raises(ConfigError, match=r"tools\.ask: the secret for Authorization") as failed:
            async with asking(served, bearer={"env": "TOKEN"}):
                pass
    assert "two" not in str(failed.value)


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with site() as served, asking(served) as ask:
        assert await ask({}) == "sunny"


async def test_the_schema_may_stand_in_a_file(tmp_path):
    file = tmp_path / "schema.json"
    file.write_bytes(msgspec.json.encode(OBJECT))
    async with site() as served, asking(served, parameters_file=str(file)) as ask:
        assert ask.chain.plugin("http-tools").tools()[0].parameters == OBJECT


@pytest.mark.parametrize(
    ("text", "why"), [(None, "cannot be read"), ("[]", "is no JSON object"), ("{", "is no JSON")]
)
async def test_a_schema_file_that_cannot_be_used(tmp_path, text, why):
    file = tmp_path / "schema.json"
    if text is not None:
        file.write_text(text)
    async with site() as served:
        with pytest.raises(ConfigError, match=why):
            async with asking(served, parameters_file=str(file)):
                pass


async def test_an_argument_in_the_path_that_is_no_parameter():
    async with site() as served:
        with pytest.raises(ConfigError, match=r"\{city\} is no property of its parameters"):
            async with asking(served, "/{city}"):
                pass


@pytest.mark.parametrize(("method", "cancellable"), [("GET", True), ("POST", False), ("DELETE", False)])
async def test_how_long_a_call_may_take_and_whether_it_may_be_cancelled(method, cancellable):
    async with site() as served, asking(served, method=method, timeout_ms=250) as ask:
        (tool,) = ask.chain.plugin("http-tools").tools()
        assert (tool.timeout_s, tool.cancellable) == (0.25, cancellable)
        assert ask.chain.plugin("http-tools").health().sentence == "offers 1 tool"


def config(**endpoint):
    endpoint = {"url": "https://a.example/", "description": "x", **endpoint}
    return msgspec.convert({"tools": {"ask": endpoint}}, Config)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example",
        "https://a.example:8443/x?y=z",
        "http://localhost:80/",
        "http://127.1.2.3/",
        "http://[::1]/{x}",
    ],
)
def test_addresses_that_can_be_used(url):
    assert config(url=url).tools["ask"].url == url


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ({"url": "http://a.example/"}, "http is for this machine alone"),
        ({"url": "http://10.0.0.1/"}, "http is for this machine alone"),
        ({"url": "http://localhost.example/"}, "http is for this machine alone"),
        ({"url": "ftp://a.example/"}, "write https://host/path"),
        ({"url": "https:///x"}, "write https://host/path"),
        ({"url": "https://a.example:x/"}, "it is none"),
        ({"url": "https://ü.example/"}, "write https://host/path"),
        ({"url": "https://u:p@a.example/"}, "no user name or password"),
        ({"url": "ftp://u:p@a.example/"}, "no user name or password"),
        ({"url": "https://a.example/#x"}, "no spaces or fragments"),
        ({"url": "https://{host}.example/"}, "in the path alone"),
        ({"url": "https://a.example/?q={q}"}, "in the path alone"),
        ({"url": "https://a.example/{a b}"}, "no spaces"),
        ({"url": "https://a.example/{}"}, "no name of an argument"),
        ({"url": "https://a.example/{a"}, "a brace has no other"),
        ({"url": "https://a.example/a}"}, "a brace has no other"),
        ({"description": ""}, "length >= 1"),
        ({"method": "TRACE"}, "Invalid enum value 'TRACE'"),
        ({"parameters": {"a": 1}, "parameters_file": "/x"}, "give one of them"),
        ({"parameters_file": "x.json"}, "absolute path"),
        ({"headers": {"Host": "x"}}, "no header that can be set here"),
        ({"headers": {"a b": "x"}}, "no header that can be set here"),
        ({"headers": {"a": "x\r\ny: z"}}, "characters that a header cannot have"),
        ({"headers": {"Authorization": "x"}, "bearer": {"env": "X"}}, "give one of them"),
        ({"timeout_ms": 0}, ">= 1"),
        ({"max_response_bytes": 0}, ">= 1"),
        ({"retries": 3}, "unknown field `retries`"),
    ],
)
def test_mistakes(endpoint, why):
    with pytest.raises(msgspec.ValidationError, match=why):
        config(**endpoint)


def test_a_name_that_no_tool_can_have():
    with pytest.raises(msgspec.ValidationError, match="'two words' is no name of a tool"):
        msgspec.convert({"tools": {"two words": {"url": "https://a.example/", "description": "x"}}}, Config)


def test_the_sample_is_right_with_everything_in_it():
    lines = SAMPLE.read_text("utf-8").splitlines()
    everything = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line for line in lines
    )
    assert tomllib.loads("\n".join(lines)) == {"plugins": {"http-tools": {}}}
    tools = msgspec.convert(tomllib.loads(everything)["plugins"]["http-tools"], Config).tools
    assert set(tools) == {"get_weather", "book_table"}
    assert tools["get_weather"].places == ["city"]
