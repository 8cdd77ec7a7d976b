"""What each kind of upstream is told, and by which way."""

import base64
import re

import pytest

from rtpipe.api.errors import ConfigError
from rtpipe.api.principal import ANONYMOUS, Principal
from rtpipe.api.secret import Secret
from rtpipe.daemon.config_upstream import Upstream
from rtpipe.daemon.upstreams import dial_request, proxy_for
from rtpipe.transport.dialer import DialFailed
from rtpipe.transport.proxies import Proxy
from tests.daemon.kit import (
    KEY,
    KEY_VARIABLE,
    MODEL,
    UPSTREAM_KEY,
    in_process,
    meeting,
    refused,
    scripted,
)
from tests.transport.test_proxies import http_proxy, served, socks_proxy

APP = Principal(id="app")
KEYED = Secret(env=KEY_VARIABLE)


def upstream(kind="openai", url="wss://model.example/v1", **more):
    more = {"api_key": KEYED, "default_model": MODEL, **more}
    return Upstream(name="model", kind=kind, url=url, **more)


def headers(of, principal=APP):
    return dial_request(of, principal, MODEL, None).headers


@pytest.mark.parametrize(
    ("kind", "url", "dialled"),
    [
        ("openai", "wss://api.openai.com", "wss://api.openai.com/v1/realtime"),
        ("openai", "wss://eu.api.openai.com/v1", "wss://eu.api.openai.com/v1/realtime"),
        ("openai", "wss://eu.api.openai.com/v1/", "wss://eu.api.openai.com/v1/realtime"),
        ("openai", "wss://eu.api.openai.com/v1/realtime", "wss://eu.api.openai.com/v1/realtime"),
        ("openai", "wss://host:8443/a/b", "wss://host:8443/a/b/realtime"),
        ("azure", "wss://res.openai.azure.com/", "wss://res.openai.azure.com/openai/v1/realtime"),
        ("azure", "wss://res.openai.azure.com/openai/v1", "wss://res.openai.azure.com/openai/v1/realtime"),
        ("sim", "ws://127.0.0.1:8700", "ws://127.0.0.1:8700/v1/realtime"),
    ],
)
def test_one_rule_for_urls(kind, url, dialled):
    request = dial_request(upstream(kind, url), APP, "a model", None)
    assert request.url == f"{dialled}?model=a+model"
    request = dial_request(upstream(kind, url), APP, "a model", "transcription")
    assert request.url == f"{dialled}?intent=transcription"


def test_openai():
    told = headers(upstream(organization="org-1", project="proj_1"))
    identifier = told.pop("OpenAI-Safety-Identifier")
    assert re.fullmatch("[0-9a-f]{64}", identifier)
    assert told == {
        "Authorization": f"Bearer {UPSTREAM_KEY}",
        "OpenAI-Organization": "org-1",
        "OpenAI-Project": "proj_1",
    }


def test_azure(tmp_path):
    assert headers(upstream("azure")) == {"api-key": UPSTREAM_KEY}
    token = tmp_path / "token"
    entra = upstream("azure", api_key=None, token=Secret(file=str(token)))
    for renewed in ("first", "second"):
        token.write_text(f"{renewed}\n")
        assert headers(entra) == {"Authorization": f"Bearer {renewed}"}
    token.unlink()
    with pytest.raises(DialFailed, match="no secret found"):
        headers(entra)


def test_a_safety_identifier_tells_callers_apart_and_names_nobody(tmp_path):
    def identifier(principal, **more):
        return headers(upstream(**more), principal).get("OpenAI-Safety-Identifier")

    def on_behalf_of(who):
        return Principal(id="app", labels={"end_user": who, "team": "any"})

    found = [
        identifier(each)
        for each in (
            APP,
            Principal(id="other"),
            on_behalf_of("ada"),
            on_behalf_of("bob"),
            on_behalf_of(""),
            Principal(id='app","ada'),
        )
    ]
    assert len(set(found)) == len(found)
    assert identifier(Principal(id="app", labels={"team": "red"})) == found[0]
    key = tmp_path / "key"
    key.write_text("another")
    assert identifier(APP, safety_key=Secret(file=str(key))) not in (*found, None)
    assert identifier(APP, safety_identifier=False) is None
    assert identifier(ANONYMOUS) is None
    assert identifier(APP, kind="azure") is None
    assert identifier(APP, kind="sim") is None


def test_the_login_of_a_proxy_is_read_at_each_dial(monkeypatch):
    proxied = upstream(proxy="http://proxy.example:3128", proxy_auth=Secret(env="TEST_PROXY_AUTH"))
    for login in (("me", "one"), ("me", "two:three")):
        monkeypatch.setenv("TEST_PROXY_AUTH", ":".join(login))
        assert proxy_for(proxied, "wss://x/") == Proxy("http", "proxy.example", 3128, login)
    for wrong in ("nocolon", ":marked"):
        monkeypatch.setenv("TEST_PROXY_AUTH", wrong)
        with pytest.raises(ConfigError, match=r"^proxy_auth is not user:password$"):
            proxy_for(proxied, "wss://x/")


def test_the_environment_counts_when_it_is_asked(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:1")
    assert proxy_for(upstream(), "wss://x/") is None
    asking = upstream(proxy="environment")
    assert proxy_for(asking, "wss://x/") == Proxy("http", "proxy.example", 1)
    monkeypatch.setenv("https_proxy", "ftp://marked:marked@proxy.example:1")
    with pytest.raises(ConfigError) as caught:
        proxy_for(asking, "wss://x/")
    assert "marked" not in str(caught.value)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_session_through_a_proxy(text, monkeypatch, kind):
    """The proxy gets its login and the upstream's name; the upstream our key, and nobody the client's."""
    monkeypatch.setenv("TEST_PROXY_AUTH", "me:secret")
    heads, asked = [], []
    async with scripted() as model:
        port = int(model.url.split(":")[2].split("/")[0])
        handler = http_proxy(port, heads) if kind == "http" else socks_proxy(port, asked, ("me", "secret"))
        async with served(handler) as place:
            config = text("ws://localhost:1/v1").replace('kind = "sim"', 'kind = "openai"')
            more = f'proxy = "{kind}://127.0.0.1:{place}"\nproxy_auth = {{ env = "TEST_PROXY_AUTH" }}\n'
            config = config.replace("default_model", f"{more}default_model", 1)
            async with in_process(config) as gateway, meeting(gateway, model) as (app, up):
                await app.send('{"type":"a"}')
                assert await up.receive() == b'{"type":"a"}'
                assert up.head.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
                assert up.head.headers["host"] == "localhost:1"
                assert KEY not in str(up.head) + str(heads) + str(asked)
                assert "proxy-authorization" not in up.head.headers
    if kind == "http":
        assert f"Basic {base64.b64encode(b'me:secret').decode()}" in heads[0]
        assert UPSTREAM_KEY not in heads[0]
    else:
        assert asked == [("localhost", "me", "secret")]


async def test_a_proxy_that_says_no(text):
    config = text("ws://localhost:1/v1").replace(
        "default_model", 'proxy = "socks5://127.0.0.1:9"\ndefault_model', 1
    )
    async with in_process(config) as gateway:
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")


def test_secrets_are_in_no_repr():
    assert UPSTREAM_KEY not in repr(upstream()) + repr(dial_request(upstream(), APP, MODEL, None))
