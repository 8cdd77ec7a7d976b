"""Who gets in, as whom, and what everybody else is told."""

import hashlib
import hmac
import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rtpipe import ConfigError, ConnectRequest, Principal, Refused
from rtpipe_auth import Auth, Config, Key
from rtpipe_auth.plugin import State

SHOWN = "do-not-show-me"  # the part looked for: source lines in tracebacks name the constants
MARKED = f"rtp_sk_{SHOWN}"
OTHER = "rtp_sk_another"
PREFIX = "openai-insecure-api-key."


class FakeHost:
    """A host whose every use but these would be a mistake."""

    stage = "auth"

    @property
    def store(self) -> Any:
        return self

    async def scan(self, prefix: str, *, after: str = "") -> dict[str, bytes]:
        assert (prefix, after) == ("revoked/", "")
        return {}

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the plugin used host.{name}")


def ask(auth: Auth, request: ConnectRequest) -> Principal:
    """Who the plugin says it is, however it says what was presented."""
    principal = trio.run(auth.authenticate, request)
    assert principal.credential.startswith("auth/")
    assert auth.still_allowed(principal)
    return msgspec.structs.replace(principal, credential="")


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def started(*keys: Mapping[str, Any]) -> Auth:
    config = msgspec.convert({"keys": list(keys)}, Config)
    auth = Auth(config, FakeHost())  # type: ignore[arg-type]
    trio.run(auth.startup)
    return auth


def known(**principal: Any) -> Auth:
    """The plugin with one key, MARKED."""
    return started({"id": "kiosk", "sha256": sha256(MARKED), **principal})


def knock(
    headers: Mapping[str, Sequence[str]] | None = None,
    subprotocols: Sequence[str] = (),
    query: Mapping[str, Sequence[str]] | None = None,
    role: str = "session",
) -> ConnectRequest:
    return ConnectRequest(
        path="/v1/realtime",
        query=query or {},
        headers=headers or {},
        subprotocols=subprotocols,
        address="192.0.2.7",
        listener="tcp",
        role=role,
    )


def bearer(key: str = MARKED, role: str = "session") -> ConnectRequest:
    return knock({"authorization": [f"Bearer {key}"]}, role=role)


def refusal(auth: Auth, request: ConnectRequest) -> Refused:
    with pytest.raises(Refused) as caught:
        ask(auth, request)
    return caught.value


# --- getting in


@pytest.mark.parametrize(
    "request_",
    [
        bearer(),
        knock({"authorization": [f"bearer   {MARKED} "]}),
        knock({"api-key": [MARKED]}),
        knock(subprotocols=["realtime", PREFIX + MARKED, "openai-beta.realtime-v1"]),
        knock({"authorization": [f"Bearer {MARKED}"], "api-key": [MARKED]}, [PREFIX + MARKED]),
        knock({"api-key": [MARKED, MARKED]}),
        knock({"api-key": [MARKED]}, query={"model": ["gpt-realtime"], "intent": ["transcription"]}),
    ],
    ids=["bearer", "any case, spaces", "api-key", "subprotocol", "everywhere", "twice", "other queries"],
)
def test_the_key_is_found_wherever_a_client_puts_it(request_: ConnectRequest) -> None:
    assert ask(known(), request_) == Principal(id="kiosk")


def test_a_secret_is_found_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(MARKED + "\n")
    monkeypatch.setenv("DISPATCH_KEY", OTHER)
    auth = started(
        {"id": "filed", "secret": {"file": str(tmp_path / "key")}},
        {"id": "dispatch", "secret": {"env": "DISPATCH_KEY"}},
    )
    assert ask(auth, bearer()).id == "filed"
    assert ask(auth, bearer(OTHER)).id == "dispatch"


@pytest.mark.parametrize(
    ("option", "written", "granted"),
    [
        ("roles", ["session", "tap"], frozenset({"session", "tap"})),
        ("labels", {"site": "foyer"}, {"site": "foyer"}),
        ("models", ["gpt-realtime"], frozenset({"gpt-realtime"})),
        ("models", [], frozenset()),
        ("tools", ["opening_hours"], frozenset({"opening_hours"})),
        ("voices", ["marin"], frozenset({"marin"})),
        ("modalities", ["text"], frozenset({"text"})),
        ("limits", {"budget_usd": "5"}, {"budget_usd": "5"}),
    ],
)
def test_each_option_reaches_the_principal(option: str, written: Any, granted: Any) -> None:
    principal = ask(known(**{option: written}), bearer())
    assert principal == msgspec.structs.replace(Principal(id="kiosk"), **{option: granted})


def test_the_policy_of_an_entry_is_that_of_its_sessions() -> None:
    key = {"id": "kiosk", "sha256": sha256(MARKED), "policy": "visitors", "labels": {"site": "foyer"}}
    config = msgspec.convert({"keys": [key], "policies": {"visitors": {}}}, Config)
    auth = Auth(config, FakeHost())  # type: ignore[arg-type]
    trio.run(auth.startup)
    assert ask(auth, bearer()).labels == {"site": "foyer", "policy": "visitors"}


def test_during_rotation_both_keys_are_the_same_caller() -> None:
    auth = started(
        {"id": "kiosk", "sha256": sha256(OTHER), "models": ["m"]},
        {"id": "kiosk", "sha256": sha256(MARKED), "models": ["m"]},
    )
    assert ask(auth, bearer()) == ask(auth, bearer(OTHER))


def test_the_role_asked_for_must_be_granted() -> None:
    auth = known(roles=["tools", "admin"])
    assert ask(auth, bearer(role="tools")).id == "kiosk"
    assert ask(auth, bearer(role="admin")).id == "kiosk"
    for role in ("session", "tap"):
        refused = refusal(auth, bearer(role=role))
        assert (refused.status, refused.code) == (403, "role_not_allowed")
        assert role in refused.message
    assert refusal(known(), bearer(role="admin")).status == 403


def test_the_model_is_left_to_the_host() -> None:
    request = knock({"api-key": [MARKED]}, query={"model": ["another"]})
    assert ask(known(models=["gpt-realtime"]), request).models == {"gpt-realtime"}


# --- being refused


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (knock(), 401, "missing_api_key"),
        (knock(subprotocols=["realtime"]), 401, "missing_api_key"),
        (bearer(OTHER), 401, "invalid_api_key"),
        (knock({"api-key": [OTHER]}), 401, "invalid_api_key"),
        (knock(subprotocols=[PREFIX + OTHER]), 401, "invalid_api_key"),
        (knock({"api-key": [""]}), 401, "invalid_api_key"),
        (knock(subprotocols=[PREFIX]), 401, "invalid_api_key"),
        (knock({"api-key": [MARKED + " more"]}), 401, "invalid_api_key"),
        (knock({"api-key": ["clé"]}), 401, "invalid_api_key"),
        (bearer("x" * 8193), 401, "invalid_api_key"),
        (knock({"authorization": [MARKED]}), 401, "malformed_authorization"),
        (knock({"authorization": ["Bearer"]}), 401, "malformed_authorization"),
        (knock({"authorization": [""]}), 401, "malformed_authorization"),
        (knock({"authorization": [f"Basic {MARKED}"]}), 401, "malformed_authorization"),
        (knock({"authorization": [f"Bearer {MARKED}"], "api-key": [OTHER]}), 400, "several_api_keys"),
        (knock({"authorization": [f"Bearer {MARKED}", "Bearer x"]}), 400, "several_api_keys"),
        (knock({"api-key": [MARKED]}, [PREFIX + OTHER]), 400, "several_api_keys"),
        (knock(subprotocols=[PREFIX + MARKED, PREFIX + OTHER]), 400, "several_api_keys"),
    ],
)
def test_everything_else_is_refused(request_: ConnectRequest, status: int, code: str) -> None:
    refused = refusal(known(), request_)
    assert (refused.status, refused.code) == (status, code)
    assert ("WWW-Authenticate" in refused.headers) == (status == 401)


def test_who_brings_no_key_is_told_where_to_put_it() -> None:
    message = refusal(known(), knock()).message
    for place in ("Authorization: Bearer", "api-key:", PREFIX):
        assert place in message


@pytest.mark.parametrize("name", ["api-key", "api_key", "apikey", "key", "token", "access_token", "API_KEY"])
def test_a_key_in_the_url_is_refused_even_beside_a_good_one(name: str) -> None:
    refused = refusal(known(), knock({"api-key": [MARKED]}, query={name: [MARKED]}))
    assert (refused.status, refused.code) == (400, "api_key_in_query")
    assert "Authorization: Bearer" in refused.message


def test_an_overlong_key_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = known()

    def hashed(*_: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(hashlib, "sha256", hashed)
    refusal(auth, bearer("x" * 8193))
    with pytest.raises(AssertionError, match="hashed"):
        ask(auth, bearer("x" * 4096))


@pytest.mark.parametrize("position", range(3))
def test_every_key_is_compared_whichever_matches(position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [OTHER, OTHER + "2", OTHER + "3"]
    auth = started(*({"id": f"k{n}", "sha256": sha256(key)} for n, key in enumerate(keys)))
    compared: list[str] = []
    compare = hmac.compare_digest

    def counting(known: bytes, presented: bytes) -> bool:
        compared.append(known.hex())
        return compare(known, presented)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    assert ask(auth, bearer(keys[position])).id == f"k{position}"
    assert compared == [sha256(key) for key in keys]
    compared.clear()
    refusal(auth, bearer(MARKED))
    assert compared == [sha256(key) for key in keys]


# --- peers of a Unix socket


def local(uid: int | None, gid: int | None, **knocking: Any) -> ConnectRequest:
    """Somebody at a Unix socket, for whom the kernel vouches."""
    return replace(knock(**knocking), uid=uid, gid=gid)


def with_peers(*peers: Mapping[str, Any]) -> Auth:
    """The plugin with the key MARKED and these peers."""
    keys = [{"id": "kiosk", "sha256": sha256(MARKED)}]
    auth = Auth(msgspec.convert({"keys": keys, "peers": list(peers)}, Config), FakeHost())  # type: ignore[arg-type]
    trio.run(auth.startup)
    return auth


PEERS = (
    {"id": "billing", "uid": 1001, "models": ["m"], "labels": {"team": "money"}},
    {"id": "services", "gid": 50, "roles": ["tools"]},
    {"id": "root", "uid": 0},
)


@pytest.mark.parametrize(
    ("uid", "gid", "role", "expected"),
    [
        (1001, 7, "session", "billing"),
        (1001, 50, "session", "billing"),
        (1002, 50, "tools", "services"),
        (0, 0, "session", "root"),
    ],
)
def test_a_peer_needs_no_key_and_the_first_match_counts(uid: int, gid: int, role: str, expected: str) -> None:
    assert ask(with_peers(*PEERS), local(uid, gid, role=role)).id == expected


def test_a_peer_has_the_principal_of_its_entry() -> None:
    principal = ask(with_peers(*PEERS), local(1001, 7))
    assert principal == Principal(id="billing", models=frozenset({"m"}), labels={"team": "money"})


@pytest.mark.parametrize(("uid", "gid"), [(None, None), (1002, 51), (50, 1001)])
def test_who_is_no_peer_needs_a_key(uid: int | None, gid: int | None) -> None:
    refused = refusal(with_peers(*PEERS), local(uid, gid))
    assert (refused.status, refused.code) == (401, "missing_api_key")
    request = local(uid, gid, headers={"api-key": [MARKED]})
    assert ask(with_peers(*PEERS), request).id == "kiosk"


def test_a_peer_that_presents_a_key_is_whom_the_key_says() -> None:
    auth = with_peers(*PEERS)
    assert ask(auth, local(1001, 7, headers={"api-key": [MARKED]})).id == "kiosk"
    assert refusal(auth, local(1001, 7, headers={"api-key": [OTHER]})).code == "invalid_api_key"
    assert refusal(auth, local(1001, 7, query={"token": [OTHER]})).code == "api_key_in_query"


def test_a_peer_is_held_to_its_roles() -> None:
    refused = refusal(with_peers(*PEERS), local(1002, 50))
    assert (refused.status, refused.code) == (403, "role_not_allowed")


# --- certificates


def with_certificates(*certificates: Mapping[str, Any]) -> Auth:
    """The plugin with the key MARKED and these certificates."""
    config = {"keys": [{"id": "kiosk", "sha256": sha256(MARKED)}], "certificates": list(certificates)}
    auth = Auth(msgspec.convert(config, Config), FakeHost())  # type: ignore[arg-type]
    trio.run(auth.startup)
    return auth


CERTIFICATES = (
    {"id": "warehouse", "subject": "CN=warehouse", "models": ["m"], "roles": ["session", "tap"]},
    {"id": "office", "subject": "CN=office"},
)


def certified(subject: str | None, **knocking: Any) -> ConnectRequest:
    """Somebody of whom TLS says whom its certificate is for."""
    return replace(knock(**knocking), subject=subject)


def test_a_certificate_has_the_principal_of_its_entry() -> None:
    auth = with_certificates(*CERTIFICATES)
    granted = Principal(id="warehouse", models=frozenset({"m"}), roles=frozenset({"session", "tap"}))
    assert ask(auth, certified("CN=warehouse", role="tap")) == granted
    assert ask(auth, certified("CN=office")) == Principal(id="office")
    assert refusal(auth, certified("CN=office", role="tap")).code == "role_not_allowed"


@pytest.mark.parametrize("subject", [None, "", "CN=another", "CN=warehouse,O=Other", "cn=warehouse"])
def test_whose_certificate_is_not_named_needs_a_key(subject: str | None) -> None:
    auth = with_certificates(*CERTIFICATES)
    assert refusal(auth, certified(subject)).code == "missing_api_key"
    assert ask(auth, certified(subject, headers={"api-key": [MARKED]})).id == "kiosk"


# --- saying nothing


@pytest.mark.parametrize(
    "request_",
    [
        bearer(),
        bearer(MARKED + MARKED),
        bearer(role="admin"),
        bearer(MARKED * 400),
        bearer(MARKED + " é"),
        knock({"authorization": [MARKED]}),
        knock({"authorization": [f"Basic {MARKED}"]}),
        knock({"authorization": [f"Bearer {MARKED}"], "api-key": [OTHER]}),
        knock(subprotocols=[PREFIX + MARKED + "x"]),
        knock(query={"api_key": [MARKED]}),
    ],
)
def test_a_marked_key_is_shown_nowhere(
    request_: ConnectRequest,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.NOTSET)
    monkeypatch.setenv("THE_KEY", MARKED)
    auth = started({"id": "kiosk", "secret": {"env": "THE_KEY"}})
    shown: list[object] = [auth, vars(auth), auth.config, auth.health()]
    try:
        shown.append(ask(auth, request_))
    except Refused as exc:
        shown += ["".join(traceback.format_exception(exc)), exc.args, vars(exc), exc.__context__]
    out = capsys.readouterr()
    text = "\n".join([*(f"{x!s} {x!r}" for x in shown), caplog.text, out.out, out.err])
    assert SHOWN not in text


def test_a_marked_key_in_the_configuration_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(msgspec.ValidationError) as invalid:
        started({"id": "kiosk", "sha256": MARKED})
    assert SHOWN not in "".join(traceback.format_exception(invalid.value))
    monkeypatch.setenv("THE_KEY", MARKED + " and more")
    with pytest.raises(ConfigError) as caught:
        started({"id": "kiosk", "secret": {"env": "THE_KEY"}})
    assert SHOWN not in "".join(traceback.format_exception(caught.value))


any_text = st.text(st.characters(exclude_categories=())) | st.text()
values = st.lists(any_text | any_text.map("Bearer ".__add__) | st.just(f"Bearer {OTHER}"), max_size=3)


@given(
    headers=st.dictionaries(st.sampled_from(["authorization", "api-key", "cookie"]), values),
    subprotocols=st.lists(any_text | any_text.map(PREFIX.__add__), max_size=3),
    query=st.dictionaries(any_text, values, max_size=3),
    role=any_text,
)
def test_whatever_comes_is_refused_and_nothing_else(
    headers: dict[str, list[str]], subprotocols: list[str], query: dict[str, list[str]], role: str
) -> None:
    refused = refusal(known(), knock(headers, subprotocols, query, role))
    assert refused.status in (400, 401)


# --- how it fares


def test_health_says_how_many_keys_there_are() -> None:
    assert known().health().sentence == "1 key is let in"
    two = started({"id": "a", "sha256": sha256(OTHER)}, {"id": "b", "sha256": sha256(MARKED)})
    assert two.health().sentence == "2 keys are let in"
    assert two.health().ok
    assert with_peers(*PEERS).health().sentence == "1 key is let in, and 3 peers without one"


def test_it_may_not_fail_open() -> None:
    assert Auth.on_error == "close"
    assert Auth.on_error_choices == ("close",)


def test_config_is_what_the_host_converts_to() -> None:
    assert Auth.config_type is Config
    assert Auth.state_type is State
    assert issubclass(Key, msgspec.Struct)


def test_limits_are_those_of_the_configuration_by_now() -> None:
    bearer = knock({"authorization": [f"Bearer {MARKED}"]})
    principal = trio.run(known(limits={"budget_usd": "1"}).authenticate, bearer)
    assert known(limits={"budget_usd": "2"}).current_limits(principal) == {"budget_usd": "2"}
    assert known().current_limits(principal) == {}
    gone = started({"id": "other", "sha256": sha256(OTHER), "limits": {"budget_usd": "9"}})
    assert gone.current_limits(principal) is None
    elsewhere = msgspec.structs.replace(principal, credential="other-stage/key:1")
    assert known().current_limits(elsewhere) is None


def test_limits_of_those_without_a_key_too() -> None:
    def auth(budget: str) -> Auth:
        limits = {"budget_usd": budget}
        peer, certificate = {"id": "local", "uid": 7}, {"id": "box", "subject": "CN=box"}
        raw = {"peers": [{**peer, "limits": limits}], "certificates": [{**certificate, "limits": limits}]}
        made = Auth(msgspec.convert(raw, Config), FakeHost())  # type: ignore[arg-type]
        trio.run(made.startup)
        return made

    for who in ({"uid": 7}, {"subject": "CN=box"}):
        principal = trio.run(auth("1").authenticate, replace(knock(), **who))
        assert principal.limits == {"budget_usd": "1"}
        assert auth("2").current_limits(principal) == {"budget_usd": "2"}
