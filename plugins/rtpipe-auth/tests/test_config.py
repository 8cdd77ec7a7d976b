"""An operator's mistakes: one line each, saying what to do."""

import hashlib
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtpipe import ConfigError
from rtpipe_auth import Auth, Config, Key, PeerRule
from rtpipe_auth.config import Caller, Certificate, Claims, ClientSecrets, Issuer
from rtpipe_auth.policy import Policy, Settings, Transcription
from rtpipe_auth.registry import Registry

HERE = Path(__file__).parent.parent
HASH = hashlib.sha256(b"rtp_sk_one").hexdigest()
HASH_2 = hashlib.sha256(b"rtp_sk_two").hexdigest()


def mistake(table: dict[str, Any]) -> str:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(table, Config)
    text = str(caught.value)
    assert "\n" not in text
    return text


def failing_start(*keys: dict[str, Any]) -> str:
    config = msgspec.convert({"keys": list(keys)}, Config)
    with pytest.raises(ConfigError) as caught:
        Registry(config, "auth")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"id": "kiosk"}, "'kiosk' has neither sha256 nor secret: give exactly one"),
        (
            {"id": "kiosk", "sha256": HASH, "secret": {"env": "X"}},
            "'kiosk' has both sha256 and secret: give exactly one",
        ),
        ({"id": "kiosk", "sha256": ""}, "not 64 lower-case hex digits: paste the line"),
        ({"id": "kiosk", "sha256": HASH[1:]}, "not 64 lower-case hex digits"),
        ({"id": "kiosk", "sha256": HASH.upper()}, "not 64 lower-case hex digits"),
        ({"id": "kiosk", "sha256": HASH + "\n"}, "not 64 lower-case hex digits"),
        ({"id": "kiosk", "sha256": HASH, "roles": ["boss"]}, "unknown role 'boss': use session, tools, tap"),
        ({"id": "a b", "sha256": HASH}, "id 'a b' cannot be used: write 1 to 64 letters"),
        ({"id": "", "sha256": HASH}, "cannot be used"),
        ({"id": "..", "sha256": HASH}, "cannot be used"),
        ({"id": "kiosk\n", "sha256": HASH}, "cannot be used"),
        ({"id": "x" * 65, "sha256": HASH}, "cannot be used"),
        ({"id": "kiosk", "sha256": HASH, "model": ["m"]}, "unknown field `model`"),
    ],
)
def test_a_wrong_key_is_named_with_its_place(key: dict[str, Any], said: str) -> None:
    text = mistake({"keys": [{"id": "good", "sha256": HASH_2}, key]})
    assert said in text
    assert "$.keys[1]" in text or "$.keys[...]" in text


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ({"id": "billing"}, "peer 'billing' has neither uid nor gid: give exactly one"),
        ({"id": "billing", "uid": 1, "gid": 1}, "peer 'billing' has both uid and gid: give exactly one"),
        ({"id": "billing", "uid": -1}, "Expected `int` >= 0"),
        ({"id": "billing", "gid": 2**32 - 1}, "Expected `int` <= 4294967294"),
        ({"id": "billing", "uid": "www-data"}, "Expected `int | null`, got `str`"),
        ({"id": "bill ing", "uid": 1}, "cannot be used"),
        ({"id": "billing", "uid": 1, "roles": ["boss"]}, "unknown role 'boss'"),
        ({"id": "billing", "uid": 1, "sha256": HASH}, "unknown field `sha256`"),
    ],
)
def test_a_wrong_peer_is_named_with_its_place(peer: dict[str, Any], said: str) -> None:
    text = mistake({"peers": [{"id": "good", "uid": 7}, peer]})
    assert said in text
    assert "$.peers[1]" in text or "$.peers[...]" in text


def test_peers_alone_are_enough() -> None:
    assert msgspec.convert({"peers": [{"id": "billing", "uid": 1001}]}, Config).keys == ()


def test_a_key_and_a_peer_of_one_caller_must_agree() -> None:
    keys = [{"id": "billing", "sha256": HASH, "models": ["m"]}]
    text = mistake({"keys": keys, "peers": [{"id": "billing", "uid": 1}]})
    assert "keys[0] and peers[0] are both 'billing' but differ in models:" in text
    msgspec.convert({"keys": keys, "peers": [{"id": "billing", "uid": 1, "models": ["m"]}]}, Config)


@pytest.mark.parametrize("table", [{}, {"keys": []}, {"peers": []}])
def test_without_keys_it_does_not_start(table: dict[str, Any]) -> None:
    assert "no keys, so nobody could connect: paste the lines" in mistake(table)


def test_unknown_options_are_refused() -> None:
    assert "unknown field `kees`" in mistake({"keys": [{"id": "a", "sha256": HASH}], "kees": []})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("roles", ["tap"]),
        ("labels", {"site": "foyer"}),
        ("models", ["m"]),
        ("tools", ["t"]),
        ("voices", ["v"]),
        ("modalities", ["text"]),
        ("limits", {"budget_usd": "5"}),
        ("persist", True),
    ],
)
def test_keys_of_one_caller_must_agree(option: str, value: Any) -> None:
    text = mistake(
        {
            "keys": [
                {"id": "kiosk", "sha256": HASH},
                {"id": "other", "sha256": HASH_2},
                {"id": "kiosk", "sha256": HASH_2, option: value},
            ]
        }
    )
    assert f"keys[0] and keys[2] are both 'kiosk' but differ in {option}:" in text


def test_one_key_cannot_be_two_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "rtp_sk_one")
    text = failing_start({"id": "a", "sha256": HASH}, {"id": "b", "secret": {"env": "THE_KEY"}})
    assert "'a' and 'b' are one and the same key" in text


def test_a_secret_that_is_not_there_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    text = failing_start({"id": "kiosk", "secret": {"env": "THE_KEY"}})
    assert text.startswith("key 'kiosk': no secret found in env 'THE_KEY'")


@pytest.mark.parametrize("secret", ["two words", "clé", "x" * 8193])
def test_a_secret_nobody_could_present_is_refused(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", secret)
    assert "could never be presented" in failing_start({"id": "kiosk", "secret": {"env": "THE_KEY"}})


@pytest.mark.parametrize(
    "struct",
    [Config, Key, PeerRule, Certificate, Issuer, Claims, ClientSecrets, Policy, Settings, Transcription],
)
def test_every_option_is_described_and_in_the_readme(struct: type[msgspec.Struct]) -> None:
    schema = msgspec.json.schema(struct)["$defs"][struct.__name__]
    readme = (HERE / "README.md").read_text()
    for field in msgspec.structs.fields(struct):
        assert schema["properties"][field.name]["description"].endswith(".")
        named = (f"`{field.name}`", f"[[plugins.auth.{field.name}]]", f"[plugins.auth.{field.name}")
        assert any(each in readme for each in named)


def test_editors_are_told_the_roles() -> None:
    schema = msgspec.json.schema(Key)["$defs"]["Key"]
    assert schema["properties"]["roles"]["items"]["enum"] == ["session", "tools", "tap", "admin"]


def test_the_sample_is_a_configuration_and_shows_every_option() -> None:
    text = (HERE / "sample.toml").read_text()
    msgspec.convert(tomllib.loads(text)["plugins"]["auth"], Config)
    # With the comment signs taken from its options it must still be one.
    everything = "\n".join(
        line.removeprefix("# ") if re.match(r"# (\w+ = |\[)", line) else line for line in text.splitlines()
    )
    tables = tomllib.loads(everything)["plugins"]["auth"]
    msgspec.convert(tables, Config)
    shown = {option for key in tables["keys"] for option in key}
    assert shown == {field.name for field in msgspec.structs.fields(Key)}
    assert {option for peer in tables["peers"] for option in peer} == {"id", "uid"}
    (issuer,) = tables["issuers"]
    assert {*issuer} == {"id", *own_fields(Issuer)}
    assert {*issuer["claims"]} == {field.name for field in msgspec.structs.fields(Claims)}
    assert {*tables["certificates"][0]} == {"id", *own_fields(Certificate)}
    assert {*tables["client_secrets"]} == {field.name for field in msgspec.structs.fields(ClientSecrets)}
    (policy,) = tables["policies"].values()
    assert {*policy} == {field.name for field in msgspec.structs.fields(Policy)}
    settings = {name for table in ("default", "set", "lock") for name in policy[table]}
    assert settings == {field.name for field in msgspec.structs.fields(Settings)}


def own_fields(struct: type[msgspec.Struct]) -> set[str]:
    """Those that a caller of any kind has not."""
    return {field.name for field in msgspec.structs.fields(struct)} - {
        field.name for field in msgspec.structs.fields(Caller)
    }


def test_the_distribution_offers_the_plugin_and_its_sample() -> None:
    (entry,) = metadata.entry_points(group="rtpipe.plugins", name="auth")
    assert entry.load() is Auth
    assert entry.dist is not None
    assert entry.dist.name == "rtpipe-auth"
    sample = [f for f in entry.dist.files or () if f.as_posix() == "rtpipe_auth/sample.toml"]
    assert len(sample) == 1
    assert Path(str(sample[0].locate())).is_file()


@pytest.mark.parametrize("table", ["keys", "peers", "certificates", "issuers"])
def test_a_caller_whose_sessions_are_persisted_wants_a_key_for_that(table: str) -> None:
    entry = {
        "keys": {"sha256": HASH_2},
        "peers": {"uid": 1},
        "certificates": {"subject": "CN=x"},
        "issuers": {"issuer": "https://login.example/", "audience": ["rtpipe"]},
    }[table]
    for persist in (True, False):
        options: dict[str, Any] = {"keys": [{"id": "other", "sha256": HASH}]}
        options[table] = [*options.get(table, []), {"id": "kiosk", "persist": persist, **entry}]
        assert Auth.wants_persistence(msgspec.convert(options, Config)) == persist
