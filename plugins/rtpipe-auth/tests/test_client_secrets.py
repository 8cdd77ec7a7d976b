"""Client secrets: made, used, run out, and taken back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from rtpipe import ConfigError, ConnectRequest, Principal, Refused, StoreError
from rtpipe.testing import ChainHarness
from rtpipe_auth import Auth
from rtpipe_auth import client_secrets as module
from rtpipe_auth.client_secrets import Minter

NOW = 1_800_000_000.0
SIGNING = b"k" * 32
CALLER = Principal(id="shop", models=frozenset({"m"}), labels={"site": "x"}, credential="auth/key:1")


class MemoryStore:
    """Records; their time to live is noted, not kept."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.ttls: list[float | None] = []
        self.fails = False

    async def put(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        if self.fails:
            raise StoreError(Path("x"), "full", "make room")
        self.records[key] = value
        self.ttls.append(ttl_s)

    async def get(self, key: str) -> bytes | None:
        if self.fails:
            raise StoreError(Path("x"), "full", "make room")
        return self.records.get(key)

    async def scan(self, prefix: str, *, after: str = "") -> dict[str, bytes]:
        return {key: value for key, value in self.records.items() if key.startswith(prefix) and key > after}


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def minter(store: MemoryStore, clock: Clock) -> Minter:
    return Minter([SIGNING], store, clock)  # type: ignore[arg-type]


SESSION = {
    "type": "realtime",
    "model": "m",
    "instructions": "do-not-show-me",
    "audio": {"output": {"voice": "v"}},
}


def body(**asked: Any) -> bytes:
    return msgspec.json.encode(asked)


async def test_it_has_the_shape_of_openais(minter: Minter, store: MemoryStore) -> None:
    answer = await minter.mint(CALLER, body(session=SESSION), "visitor")
    assert {*answer} == {"value", "expires_at", "session"}
    assert str(answer["value"]).startswith("ek_")
    assert len(str(answer["value"])) < 100
    assert answer["expires_at"] == NOW + 600
    session: Any = answer["session"]
    assert session["object"] == "realtime.session"
    assert session["id"].startswith("sess_")
    assert {key: session[key] for key in SESSION} == SESSION
    assert store.ttls == [600.0]


async def test_it_is_what_its_maker_is_bound_to_the_session(minter: Minter) -> None:
    answer = await minter.mint(
        msgspec.structs.replace(CALLER, roles=frozenset({"admin"})), body(session=SESSION), "v"
    )
    principal = await minter.holder(str(answer["value"]))
    assert principal == msgspec.structs.replace(
        CALLER, session=SESSION, labels={"site": "x", "end_user": "v"}, roles=frozenset({"session"})
    )


async def test_it_is_good_until_it_expires(minter: Minter, clock: Clock) -> None:
    for seconds in (10, 7200):
        asked = {"anchor": "created_at", "seconds": seconds}
        value = str((await minter.mint(CALLER, body(expires_after=asked), None))["value"])
        clock.time += seconds - 1
        await minter.holder(value)
        await minter.holder(value)
        clock.time += 1
        with pytest.raises(Refused) as caught:
            await minter.holder(value)
        assert (caught.value.status, caught.value.code) == (401, "client_secret_expired")


async def test_it_does_not_outlive_the_token_it_was_made_with(minter: Minter) -> None:
    answer = await minter.mint(msgspec.structs.replace(CALLER, expires_at=NOW + 30.5), b"", None)
    assert answer["expires_at"] == NOW + 30


async def test_nobody_makes_one_up(minter: Minter, store: MemoryStore, clock: Clock) -> None:
    value = str((await minter.mint(CALLER, b"{}", None))["value"])
    forged = [
        value[:-4] + "AAAA",
        value[:3] + "AAAA" + value[7:],
        "ek_",
        "ek_é",
        "ek_" + "A" * 66,
        value + "A",
    ]
    for other in ([b"o" * 32], [b"o" * 32, b"p" * 32]):
        stranger = Minter(other, store, clock)  # type: ignore[arg-type]
        forged.append(str((await stranger.mint(CALLER, b"{}", None))["value"]))
    store.fails = True  # nor does it make us look
    for each in forged:
        with pytest.raises(Refused) as caught:
            await minter.holder(each)
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


async def test_the_key_before_is_still_accepted(minter: Minter, store: MemoryStore, clock: Clock) -> None:
    value = str((await minter.mint(CALLER, b"{}", None))["value"])
    both = Minter([b"n" * 32, SIGNING], store, clock)  # type: ignore[arg-type]
    await both.holder(value)
    new = str((await both.mint(CALLER, b"{}", None))["value"])
    with pytest.raises(Refused):
        await minter.holder(new)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (b"nothing", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (body(expires_after={"seconds": 9}), 400, "invalid_request"),
        (body(expires_after={"seconds": 7201}), 400, "invalid_request"),
        (body(expires_after={"anchor": "now"}), 400, "invalid_request"),
        (body(colour="red"), 400, "invalid_request"),
        (body(session={"type": "live"}), 400, "invalid_request"),
        (body(session={"model": 7}), 400, "invalid_request"),
        (body(session={"audio": None}), 400, "invalid_request"),
        (body(session={"instructions": "x" * 40_000}), 400, "invalid_request"),
        (body(session={"model": "other"}), 403, "model_not_allowed"),
        (body(session={"audio": {"output": {"voice": "other"}}}), 403, "voice_not_allowed"),
    ],
)
async def test_what_cannot_be_asked_for(minter: Minter, asked: bytes, status: int, code: str) -> None:
    with pytest.raises(Refused) as caught:
        await minter.mint(msgspec.structs.replace(CALLER, voices=frozenset({"v"})), asked, None)
    assert (caught.value.status, caught.value.code) == (status, code)


async def test_what_one_caller_keeps_is_bounded(
    minter: Minter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    made = len(msgspec.json.encode(CALLER)) + 20  # and its session
    for _ in range(1000 // made):
        await minter.mint(CALLER, b"{}", None)
    with pytest.raises(Refused) as caught:
        await minter.mint(CALLER, body(session={"instructions": "x" * 400}), None)
    assert (caught.value.status, caught.value.code) == (429, "too_many_client_secrets")
    await minter.mint(msgspec.structs.replace(CALLER, credential="auth/key:2"), b"{}", None)
    clock.time += 601
    await minter.mint(CALLER, b"{}", None)


async def test_a_disk_that_is_full(minter: Minter, store: MemoryStore) -> None:
    value = str((await minter.mint(CALLER, b"{}", None))["value"])
    store.fails = True
    for attempt in (minter.mint(CALLER, b"{}", None), minter.holder(value)):
        with pytest.raises(Refused) as caught:
            await attempt
        assert (caught.value.status, caught.value.code) == (503, "client_secrets_unavailable")


# --- in the plugin


@pytest.fixture
async def auth(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Auth]:
    monkeypatch.setenv("SIGNING", "s" * 32)
    config = {
        "keys": [{"id": "shop", "sha256": module.hashlib.sha256(b"rtp_sk_shop").hexdigest()}],
        "client_secrets": {"signing_key": {"env": "SIGNING"}},
    }
    async with ChainHarness({"auth": (Auth, config)}, store=lambda _: store) as chain:  # type: ignore[arg-type,return-value]
        yield chain.plugin("auth")


def knock(key: str, *, subprotocol: bool = False, **headers: str) -> ConnectRequest:
    if subprotocol:
        offered = ["realtime", f"openai-insecure-api-key.{key}"]
        return ConnectRequest(path="/v1/realtime", query={}, headers={}, subprotocols=offered)
    found = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return ConnectRequest(
        path="/v1/realtime", query={}, headers={"authorization": [f"Bearer {key}"], **found}
    )


async def mint(auth: Auth, request: ConnectRequest) -> Any:
    (route,) = [route for route in auth.routes() if route.path == "/v1/realtime/client_secrets"]
    assert (route.method, route.access) == ("POST", "open")
    return (await route.handler(request, b"{}")).body


async def test_made_with_a_key_and_used_both_ways(auth: Auth) -> None:
    value = (await mint(auth, knock("rtp_sk_shop", openai_safety_identifier="v17")))["value"]
    for request in (knock(value), knock(value, subprotocol=True)):
        principal = await auth.authenticate(request)
        assert (principal.id, principal.labels) == ("shop", {"end_user": "v17"})
        assert auth.still_allowed(principal)


async def test_only_who_is_let_in_makes_one_and_a_secret_makes_no_other(auth: Auth) -> None:
    with pytest.raises(Refused) as caught:
        await mint(auth, knock("wrong"))
    assert caught.value.status == 401
    value = (await mint(auth, knock("rtp_sk_shop")))["value"]
    with pytest.raises(Refused) as caught:
        await mint(auth, knock(value))
    assert caught.value.status == 403


async def test_it_is_taken_back_with_the_key_it_was_made_with(auth: Auth, store: MemoryStore) -> None:
    value = (await mint(auth, knock("rtp_sk_shop")))["value"]
    principal = await auth.authenticate(knock(value))
    (revoke,) = [route for route in auth.routes() if route.path == "/auth/keys/revoke"]
    assert revoke.access == "admin"
    asked = ConnectRequest(path=revoke.path, query={"id": ["shop"], "sha256": [""]}, headers={})
    answer: Any = (await revoke.handler(asked, b"")).body
    assert len(answer["revoked"]) == 1
    assert auth.still_allowed(principal) is False
    for key in (value, "rtp_sk_shop"):
        with pytest.raises(Refused) as caught:
            await auth.authenticate(knock(key))
        assert caught.value.status == 401
    with pytest.raises(Refused) as caught:
        await revoke.handler(asked, b"")
    assert caught.value.status == 404


def signing(store: MemoryStore, key: str, previous: str | None = None) -> ChainHarness:
    """A gateway that finds its signing keys in these variables."""
    options = {"signing_key": {"env": key}} | ({"previous_key": {"env": previous}} if previous else {})
    config = {
        "keys": [{"id": "shop", "sha256": module.hashlib.sha256(b"rtp_sk_shop").hexdigest()}],
        "client_secrets": options,
    }
    return ChainHarness({"auth": (Auth, config)}, store=lambda _: store)  # type: ignore[arg-type,return-value]


async def test_a_signing_key_is_replaced(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "o" * 32)
    monkeypatch.setenv("NEW", "n" * 32)
    async with signing(store, "OLD") as chain:
        before = (await mint(chain.plugin("auth"), knock("rtp_sk_shop")))["value"]
    async with signing(store, "NEW", "OLD") as chain:
        after = (await mint(chain.plugin("auth"), knock("rtp_sk_shop")))["value"]
        for value in (before, after):
            assert (await chain.plugin("auth").authenticate(knock(value))).id == "shop"
    for key, good, bad in (("OLD", before, after), ("NEW", after, before)):
        async with signing(store, key) as chain:
            assert (await chain.plugin("auth").authenticate(knock(good))).id == "shop"
            with pytest.raises(Refused) as caught:
                await chain.plugin("auth").authenticate(knock(bad))
            assert caught.value.code == "invalid_api_key"


async def test_a_weak_signing_key_is_none(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING", "s" * 31)
    config = {"peers": [{"id": "a", "uid": 1}], "client_secrets": {"signing_key": {"env": "SIGNING"}}}
    with pytest.raises(ConfigError, match="fewer than 32 characters: make one with"):
        async with ChainHarness({"auth": (Auth, config)}, store=lambda _: store):  # type: ignore[arg-type,return-value]
            raise AssertionError("it started")


async def test_without_options_there_is_no_such_route() -> None:
    async with ChainHarness({"auth": (Auth, {"peers": [{"id": "a", "uid": 1}]})}) as chain:
        assert [route.path for route in chain.plugin("auth").routes()] == ["/auth/keys/revoke"]
    await trio.lowlevel.checkpoint()
