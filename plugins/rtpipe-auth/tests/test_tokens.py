"""Tokens of an identity provider that the test plays, with a clock of its own."""

from typing import Any

import jwt
import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from rtpipe import ConnectRequest, Principal, Refused
from rtpipe.testing import ChainHarness
from rtpipe_auth import Auth, Config
from rtpipe_auth.key_sets import SPACING_S

NOW = 1_800_000_000.0
SHOWN = "do-not-show-me"


class Provider:
    """Serves its public keys, signs tokens, and counts who asks."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.asked: list[str] = []
        self.down = False
        self.url = ""
        self.document: dict[str, Any] | None = None

    def add(self, kid: str) -> None:
        self.private[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def keys(self) -> list[dict[str, Any]]:
        found = []
        for kid, key in self.private.items():
            kind = (
                jwt.algorithms.RSAAlgorithm
                if isinstance(key, rsa.RSAPrivateKey)
                else jwt.algorithms.ECAlgorithm
            )
            found.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return found

    def token(self, kid: str = "one", algorithm: str = "RS256", **claims: Any) -> str:
        standard = {"iss": self.url, "aud": "rtpipe", "sub": "alice", "exp": int(NOW) + 600}
        said = {key: value for key, value in {**standard, **claims}.items() if value is not None}
        return jwt.encode(said, self.private[kid], algorithm=algorithm, headers={"kid": kid})

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some(4096)
                if not data:
                    return
                head += data
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            document: dict[str, Any] = {"keys": self.keys()}
            if path.endswith("openid-configuration"):
                document = self.document or {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            body = msgspec.json.encode(document)
            status = b"503 Down" if self.down else b"200 OK"
            await stream.send_all(
                b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )


@pytest.fixture
async def provider(nursery: trio.Nursery) -> Provider:
    found = Provider()
    found.add("one")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    found.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    nursery.start_soon(trio.serve_listeners, found.serve, [listener])
    return found


class Clocked(Auth):
    """At a time that the test says; the monotonic clock moves it on."""

    ahead_s = 0.0

    def now(self) -> float:  # type: ignore[override]
        return NOW + self.ahead_s


class Judge:
    """The plugin in a running session of somebody else's, to ask it about others."""

    def __init__(self, chain: ChainHarness) -> None:
        self.plugin: Clocked = chain.plugin("auth")

    async def ask(self, token: str, role: str = "session") -> Principal:
        request = ConnectRequest(
            path="/v1/realtime", query={}, headers={"authorization": [f"Bearer {token}"]}, role=role
        )
        principal: Principal = await self.plugin.authenticate(request)
        return principal

    async def refuse(self, token: str, role: str = "session") -> Refused:
        with pytest.raises(Refused) as caught:
            await self.ask(token, role)
        assert token not in str(caught.value)
        assert SHOWN not in str(caught.value)
        self.plugin._guessing._entries.clear()
        return caught.value


def chain(provider: Provider, principal: Principal | None = None, **options: Any) -> ChainHarness:
    entry = {
        "id": "staff",
        "issuer": provider.url,
        "audience": ["rtpipe"],
        "jwks_url": f"{provider.url}/keys",
    }
    config = {"issuers": [{**entry, **options}], "policies": {"visitors": {}}}
    return ChainHarness({"auth": (Clocked, config)}, principal=principal or Principal(id="other"))


async def test_a_good_token_is_a_principal(provider: Provider) -> None:
    async with chain(provider) as made:
        principal = await Judge(made).ask(provider.token())
        assert principal == Principal(
            id="staff",
            labels={"end_user": "alice"},
            credential="auth/issuer:staff",
            expires_at=NOW + 600 + 30,
        )
        assert made.plugin("auth").still_allowed(principal)


async def test_limits_by_now_are_the_configurations_unless_tokens_have_their_own(provider: Provider) -> None:
    for claims, by_now in (({}, {"budget_usd": "2"}), ({"limits": "quota"}, None)):
        async with chain(provider, claims=claims) as before:
            principal = await Judge(before).ask(provider.token())
        async with chain(provider, claims=claims, limits={"budget_usd": "2"}) as after:
            assert after.plugin("auth").current_limits(principal) == by_now


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://other.example"}, "invalid_token"),
        ({"iss": None}, "invalid_token"),
        ({"aud": "somebody else"}, "invalid_token"),
        ({"aud": None}, "invalid_token"),
        ({"exp": int(NOW) - 30}, "token_expired"),
        ({"exp": None}, "invalid_token"),
        ({"nbf": int(NOW) + 31}, "invalid_token"),
        ({"iat": int(NOW) + 31}, "invalid_token"),
        ({"exp": SHOWN}, "invalid_token"),
    ],
)
async def test_a_token_that_is_not_good(provider: Provider, claims: dict[str, Any], code: str) -> None:
    async with chain(provider) as made:
        refused = await Judge(made).refuse(provider.token(**claims))
        assert (refused.status, refused.code) == (401, code)


async def test_the_clocks_may_differ_by_the_leeway(provider: Provider) -> None:
    just = {"exp": int(NOW) - 29, "nbf": int(NOW) + 29, "iat": int(NOW) + 29}
    async with chain(provider) as made:
        await Judge(made).ask(provider.token(**just))
    async with chain(provider, leeway_s=10) as made:
        judge = Judge(made)
        assert (await judge.refuse(provider.token(**just))).code == "token_expired"
        for name in ("nbf", "iat"):
            assert (await judge.refuse(provider.token(**{name: int(NOW) + 11}))).code == "invalid_token"
            await judge.ask(provider.token(**{name: int(NOW) + 10}))
        assert (await judge.ask(provider.token())).expires_at == NOW + 600 + 10


async def test_signatures(provider: Provider) -> None:
    async with chain(provider) as made:
        judge = Judge(made)
        good = provider.token()
        head, body, signature = good.split(".")
        other = Provider()
        other.url = provider.url
        other.add("one")
        for bad in (
            other.token(),  # the same key id, another key
            f"{head}.{body}.{signature[:-8]}AAAAAAAA",
            f"{head}.{provider.token(sub='bob').split('.')[1]}.{signature}",
            provider.token(algorithm="RS512"),
            jwt.encode({"iss": provider.url}, None, algorithm="none"),
            jwt.encode(
                {"iss": provider.url, "aud": "rtpipe", "exp": NOW + 9}, "x" * 32, headers={"kid": "one"}
            ),
            "a.b.c",
        ):
            # Without a signature it has not even the shape of one.
            expected = "invalid_api_key" if bad.endswith(".") else "invalid_token"
            assert (await judge.refuse(bad)).code == expected
        await judge.ask(good)
    async with chain(provider, algorithms=["ES256"]) as made:
        assert (await Judge(made).refuse(good)).code == "invalid_token"
        provider.private["curve"] = ec.generate_private_key(ec.SECP256R1())
    async with chain(provider, algorithms=["ES256"]) as made:
        await Judge(made).ask(provider.token("curve", "ES256"))


async def test_another_audience(provider: Provider) -> None:
    async with chain(provider, audience=["a", "b"]) as made:
        await Judge(made).ask(provider.token(aud=["x", "b"]))
        await Judge(made).refuse(provider.token())


async def test_keys_are_fetched_once_and_anew_when_they_change(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("rtpipe_auth.key_sets.current_time", lambda: now)
    async with chain(provider) as made:
        judge = Judge(made)
        for _ in range(3):
            await judge.ask(provider.token())
        assert provider.asked == ["/keys"]
        provider.add("two")
        # Not for everybody who makes a key id up.
        assert (await judge.refuse(provider.token("two"))).code == "invalid_token"
        assert provider.asked == ["/keys"]
        now += SPACING_S
        await judge.ask(provider.token("two"))
        assert provider.asked == ["/keys"] * 2
        old = provider.token("one")
        del provider.private["one"]
        await judge.ask(old)
        now += 601  # fetched anew in the background, and used meanwhile
        await judge.ask(provider.token("two"))
        with trio.fail_after(10):
            fetched = made.plugin("auth")._issuers.key_sets[0].refresh()
            if fetched is not None:
                await fetched.wait()
        assert len(provider.asked) == 3
        assert (await judge.refuse(old)).code == "invalid_token"


async def test_an_issuer_that_is_down(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("rtpipe_auth.key_sets.current_time", lambda: now)
    provider.down = True
    async with chain(provider) as made:
        judge = Judge(made)
        refused = await judge.refuse(provider.token())
        assert (refused.status, refused.code) == (503, "issuer_unavailable")
        health = made.plugin("auth").health()
        assert (health.ok, health.sentence) == (
            False,
            "the keys of issuer staff cannot be had: it answered 503",
        )
        provider.down = False
        now += SPACING_S
        await judge.ask(provider.token())
        assert made.plugin("auth").health().ok
        provider.down = True
        now += 24 * 3600.0 - 1  # what it had is used for a day
        await judge.ask(provider.token())
        now += 24 * 3600.0
        assert (await judge.refuse(provider.token())).status == 503


async def test_keys_are_found_by_discovery(provider: Provider) -> None:
    async with chain(provider, jwks_url=None) as made:
        await Judge(made).ask(provider.token())
        assert provider.asked == ["/.well-known/openid-configuration", "/keys"]
    for document in (
        {"issuer": "https://other"},
        {"issuer": provider.url, "jwks_uri": "http://elsewhere/keys"},
    ):
        provider.document = document
        async with chain(provider, jwks_url=None) as made:
            assert (await Judge(made).refuse(provider.token())).status == 503


CLAIMS = {
    "id": "login",
    "labels": {"team": "org.team"},
    "roles": "scope",
    "models": "models",
    "tools": "https://example/tools",
    "voices": "voices",
    "modalities": "modalities",
    "limits": "limits",
    "policy": "policy",
    "persist": "may_be_written",
}


async def test_claims_narrow_what_the_entry_grants(provider: Provider) -> None:
    grants = {
        "roles": ["session", "tap"],
        "models": ["a", "b"],
        "limits": {"budget_usd": "5", "minutes": "10"},
    }
    async with chain(provider, **grants, labels={"site": "x"}, claims=CLAIMS) as made:
        judge = Judge(made)
        token = provider.token(
            login="al",
            org={"team": "red"},
            scope="tap admin openid",
            models=["b", "c"],
            limits={"budget_usd": 2},
            policy="visitors",
            voices=["marin"],
            modalities=["text"],
            **{"https://example/tools": ["t"]},
        )
        principal = await judge.ask(token, role="tap")
        assert msgspec.structs.replace(principal, credential="", expires_at=None) == Principal(
            id="al",
            labels={"site": "x", "team": "red", "end_user": "alice", "policy": "visitors"},
            roles=frozenset({"tap"}),
            models=frozenset({"b"}),
            tools=frozenset({"t"}),
            voices=frozenset({"marin"}),
            modalities=frozenset({"text"}),
            limits={"budget_usd": 2, "minutes": "10"},
        )
        assert (await judge.refuse(token)).code == "role_not_allowed"
        plain = await judge.ask(provider.token(login="al"))
        assert plain.models == {"a", "b"}
        assert plain.roles == {"session", "tap"}


@pytest.mark.parametrize("granted", [False, True])
async def test_a_claim_can_keep_what_is_said_from_being_written(provider: Provider, granted: bool) -> None:
    async with chain(provider, persist=granted, claims=CLAIMS) as made:
        judge = Judge(made)
        assert (await judge.ask(provider.token(login="al"))).persist == granted
        assert (await judge.ask(provider.token(login="al", may_be_written=True))).persist == granted
        assert not (await judge.ask(provider.token(login="al", may_be_written=False))).persist


@pytest.mark.parametrize(
    "claims",
    [
        {"login": "not an id"},
        {"login": None},
        {"login": "al", "scope": 7},
        {"login": "al", "models": [7]},
        {"login": "al", "limits": "much"},
        {"login": "al", "limits": {"a": [1]}},
        {"login": "al", "policy": "another"},
        {"login": "al", "may_be_written": "true"},
        {"login": "al", "org": {"team": ["x"]}},
    ],
)
async def test_a_claim_that_is_not_what_it_should_be_is_no_grant(provider: Provider, claims: Any) -> None:
    async with chain(provider, claims=CLAIMS) as made:
        refused = await Judge(made).refuse(provider.token(**claims))
        assert (refused.status, refused.code) == (403, "claim_not_usable")


async def test_the_claim_for_the_end_user(provider: Provider) -> None:
    async with chain(provider, claims={"end_user": "mail"}) as made:
        assert (await Judge(made).ask(provider.token(mail="a@b"))).labels == {"end_user": "a@b"}


# --- during a session


def expiring(in_s: float) -> Principal:
    return Principal(id="staff", credential="auth/issuer:staff", expires_at=NOW + in_s)


async def pass_s(made: ChainHarness, seconds: float) -> None:
    await trio.sleep(seconds)
    made.plugin("auth").ahead_s += seconds


RUNNING = {"type": "response.created", "event_id": "a", "response": {"id": "r1", "output": []}}
DONE = {"type": "response.done", "event_id": "b", "response": {"id": "r1", "output": []}}
CALLS = {
    "type": "response.done",
    "event_id": "b",
    "response": {"id": "r1", "output": [{"type": "function_call"}]},
}


class Ticking(Clocked):
    def now(self) -> float:  # type: ignore[override]
        return NOW + trio.current_time() - self.began

    def __init__(self, config: Any, host: Any) -> None:
        super().__init__(config, host)
        self.began = trio.current_time()


def timed(on_expiry: str | None) -> ChainHarness:
    # Nobody answers there, and nobody has to: the session was let in already.
    entry = {"id": "staff", "issuer": "http://127.0.0.1:9", "audience": ["rtpipe"]}
    if on_expiry is not None:
        entry["on_expiry"] = on_expiry
    return ChainHarness({"auth": (Ticking, {"issuers": [entry]})}, principal=expiring(100))


@pytest.mark.parametrize("on_expiry", ["close", "finish_turn"])
async def test_a_session_ends_with_its_token(on_expiry: str, autojump_clock: Any) -> None:
    async with timed(on_expiry) as made:
        await trio.sleep(99)
        assert made.client.closing is None
        await trio.sleep(2)
        assert [event["error"]["code"] for event in made.client.take()] == ["token_expired"]
        assert made.client.closing is not None
        assert (made.client.closing.code, made.client.closing.reason) == (
            3000,
            "invalid_request_error.token_expired",
        )


@pytest.mark.parametrize("on_expiry", ["finish_turn", None])
@pytest.mark.parametrize("first", [DONE, CALLS])
async def test_a_turn_may_be_finished(
    first: dict[str, Any], on_expiry: str | None, autojump_clock: Any
) -> None:
    async with timed(on_expiry) as made:
        await made.upstream.send(RUNNING)
        await trio.sleep(110)
        assert made.client.closing is None
        await made.upstream.send(first)
        if first is CALLS:  # the model goes on when it has the result
            await trio.sleep(1)
            assert made.client.closing is None
            await made.upstream.send({**RUNNING, "response": {"id": "r2", "output": []}})
            await made.upstream.send({**DONE, "response": {"id": "r2", "output": []}})
        await trio.sleep(1)
        assert made.client.closing is not None
        assert made.client.closing.code == 3000


async def test_a_turn_without_an_end_has_one(autojump_clock: Any) -> None:
    async with timed("finish_turn") as made:
        await made.upstream.send(RUNNING)
        await trio.sleep(159)
        assert made.client.closing is None
        await trio.sleep(2)
        assert made.client.closing is not None


async def test_a_call_may_be_cut(autojump_clock: Any) -> None:
    async with timed("close") as made:
        await made.upstream.send(RUNNING)
        await trio.sleep(101)
        assert made.client.closing is not None


async def test_an_expiry_may_be_ignored(autojump_clock: Any) -> None:
    async with timed("ignore") as made:
        await trio.sleep(1000)
        assert made.client.closing is None


def test_addresses_that_others_could_answer_for_are_refused() -> None:
    for url in ("http://login.example", "ftp://x", "https://", "login.example", "http://127.0.0.1.evil"):
        entry = {"id": "staff", "issuer": url, "audience": ["a"]}
        with pytest.raises(msgspec.ValidationError, match="must begin with https://"):
            msgspec.convert({"issuers": [entry]}, Config)
