"""What the operator writes: who is let in by what, and what each of them may do.

Mistakes are ``ValueError`` here, not ``ConfigError``: msgspec adds to them where in the file they are.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from rtpipe import Principal, Secret
from rtpipe_auth.policy import POLICY_LABEL, Policy

ROLES = ("session", "tools", "tap", "admin")
ID_RULE = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_Number = Annotated[int, Meta(ge=0, le=2**32 - 2)]  # the last one means nobody
_Role = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]


def is_id(text: str) -> bool:
    """Whether *text* may name a caller."""
    return _ID.fullmatch(text) is not None


def checked_id(text: str) -> str:
    """*text* if it may name a caller in logs, metrics and files; ``ValueError`` otherwise."""
    if not is_id(text):
        raise ValueError(f"id {text!r} cannot be used: write {ID_RULE}")
    return text


class Caller(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A principal, as an entry of the configuration makes it."""

    id: Annotated[
        str,
        Meta(
            description="The caller's name in logs, metrics and bills. Entries may share it, as two keys do "
            "while one replaces the other."
        ),
    ]
    roles: Annotated[
        frozenset[_Role], Meta(description="What the caller may connect as: session, tools, tap, admin.")
    ] = frozenset({"session"})
    labels: Annotated[
        dict[str, str], Meta(description="Free labels of the caller, for metrics and other plugins.")
    ] = msgspec.field(default_factory=dict)
    models: Annotated[
        frozenset[str] | None, Meta(description="Models the caller may use; left out, any.")
    ] = None
    tools: Annotated[frozenset[str] | None, Meta(description="Tools the caller may use; left out, any.")] = (
        None
    )
    voices: Annotated[
        frozenset[str] | None, Meta(description="Voices the caller may choose; left out, any.")
    ] = None
    modalities: Annotated[
        frozenset[str] | None, Meta(description="Modalities the caller may ask for; left out, any.")
    ] = None
    limits: Annotated[
        dict[str, str], Meta(description="Quantities that a governing plugin enforces, as text.")
    ] = msgspec.field(default_factory=dict)

    policy: Annotated[
        str | None, Meta(description="The policy for the caller's sessions, by its name in `policies`.")
    ] = None
    persist: Annotated[
        bool,
        Meta(
            description="Sessions that the caller's clients name outlive the gateway's process, encrypted "
            "with a key of `[persist]`."
        ),
    ] = False

    def __post_init__(self) -> None:
        checked_id(self.id)
        if POLICY_LABEL in self.labels:
            raise ValueError(f"the label {POLICY_LABEL!r} of {self.id!r} is taken: write policy = … instead")
        if unknown := sorted(self.roles.difference(ROLES)):
            raise ValueError(f"{self.id!r} has the unknown role {unknown[0]!r}: use {', '.join(ROLES)}")

    def principal(self) -> Principal:
        """The caller this entry stands for."""
        return Principal(
            id=self.id,
            labels=self.labels if self.policy is None else {**self.labels, POLICY_LABEL: self.policy},
            roles=self.roles,
            models=self.models,
            tools=self.tools,
            voices=self.voices,
            modalities=self.modalities,
            limits=self.limits,
            persist=self.persist,
        )


class Key(Caller, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key, given by its hash or by where to find it, and the principal it makes."""

    sha256: Annotated[
        str | None,
        Meta(description="SHA-256 of the key, 64 lower-case hex digits; `rtpipe keys new ID` prints it."),
    ] = None
    secret: Annotated[
        Secret | None,
        Meta(description="Instead of sha256: where the key itself is found (credential, file, env)."),
    ] = None

    def __post_init__(self) -> None:
        Caller.__post_init__(self)
        if (self.sha256 is None) == (self.secret is None):
            which = "neither sha256 nor secret" if self.sha256 is None else "both sha256 and secret"
            raise ValueError(f"key {self.id!r} has {which}: give exactly one of them")
        # The text is not shown: a common mistake is to put the key itself here.
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(
                f"sha256 of key {self.id!r} is not 64 lower-case hex digits: "
                f"paste the line that `rtpipe keys new {self.id}` prints"
            )


class PeerRule(Caller, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user or a group of this machine that needs no key on a Unix socket, and the principal it makes."""

    uid: Annotated[
        _Number | None, Meta(description="The user the connecting process runs as, by number.")
    ] = None
    gid: Annotated[
        _Number | None,
        Meta(
            description="Instead of uid: the group the connecting process runs as, by number; its "
            "supplementary groups do not count.",
        ),
    ] = None

    def __post_init__(self) -> None:
        Caller.__post_init__(self)
        if (self.uid is None) == (self.gid is None):
            which = "neither uid nor gid" if self.uid is None else "both uid and gid"
            raise ValueError(f"peer {self.id!r} has {which}: give exactly one of them")

    def matches(self, uid: int | None, gid: int | None) -> bool:
        """Whether it is about a process with these ids; ``None``: not known, which nobody matches."""
        return self.uid == uid if self.uid is not None else gid is not None and self.gid == gid


class Certificate(Caller, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client certificate that needs no key on a listener with `client_ca`, and the principal it makes."""

    subject: Annotated[
        str,
        Meta(
            description="Whom it is for, as `openssl x509 -noout -subject -nameopt RFC2253` says.",
            min_length=1,
        ),
    ]


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which claims of a token say what. A claim within another is written with dots."""

    id: Annotated[
        str | None, Meta(description="The caller's name; left out, all tokens of the issuer are one caller.")
    ] = None
    end_user: Annotated[str, Meta(description="On whose behalf the caller speaks.")] = "sub"
    roles: Annotated[str | None, Meta(description="Roles: a list, or words in one text.")] = None
    models: Annotated[str | None, Meta(description="Models, likewise.")] = None
    tools: Annotated[str | None, Meta(description="Tools, likewise.")] = None
    voices: Annotated[str | None, Meta(description="Voices, likewise.")] = None
    modalities: Annotated[str | None, Meta(description="Modalities, likewise.")] = None
    limits: Annotated[str | None, Meta(description="Limits: an object of numbers or texts by name.")] = None
    policy: Annotated[str | None, Meta(description="The name of a policy.")] = None
    persist: Annotated[str | None, Meta(description="`false`: what the caller says is not written.")] = None
    labels: Annotated[dict[str, str], Meta(description="Labels, each with the claim that is its value.")] = (
        msgspec.field(default_factory=dict)
    )


_Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class Issuer(Caller, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An identity provider whose tokens (JWT) are let in, and what the principals of those are made of.

    What its claims say narrows what is granted here, and never widens it; `limits` of a claim replace those
    of the same name.
    """

    issuer: Annotated[str, Meta(description="The `iss` of its tokens, a URL.", min_length=1)]
    audience: Annotated[
        tuple[str, ...], Meta(description="The `aud` of tokens for this gateway: any of these.", min_length=1)
    ]
    jwks_url: Annotated[
        str | None,
        Meta(description="Where its keys are; left out, what its OpenID configuration says."),
    ] = None
    algorithms: Annotated[tuple[_Algorithm, ...], Meta(description="Signatures to accept.", min_length=1)] = (
        "RS256",
        "ES256",
    )
    leeway_s: Annotated[float, Meta(ge=0, le=600, description="What its clock and ours may differ by.")] = (
        30.0
    )
    on_expiry: Annotated[
        Literal["close", "finish_turn", "ignore"],
        Meta(
            description="When a token expires during a session: `close` it, close it when the model has "
            "answered, a minute later at most (`finish_turn`), or `ignore` that."
        ),
    ] = "finish_turn"
    claims: Annotated[Claims, Meta(description="Which claims say what.")] = Claims()

    def __post_init__(self) -> None:
        Caller.__post_init__(self)
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url is not None and not is_safe_url(url):
                raise ValueError(
                    f"{name} of {self.id!r} must begin with https://, or http:// and this machine's address"
                )


def is_safe_url(text: str) -> bool:
    """Whether nobody on the way could put other keys in its place."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost"))
    )


class ClientSecrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Short-lived keys for browsers, which callers have made at `/v1/realtime/client_secrets`."""

    signing_key: Annotated[
        Secret, Meta(description="Where the key is found that signs them, 32 characters or more.")
    ]
    previous_key: Annotated[
        Secret | None, Meta(description="The signing key before, while what it has signed is still around.")
    ] = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.auth]``."""

    keys: Annotated[tuple[Key, ...], Meta(description="The keys that are let in.")] = ()
    peers: Annotated[
        tuple[PeerRule, ...],
        Meta(
            description="Users and groups of this machine that are let in on Unix sockets; the first counts."
        ),
    ] = ()
    certificates: Annotated[
        tuple[Certificate, ...],
        Meta(description="Client certificates that are let in on listeners with `client_ca`."),
    ] = ()
    issuers: Annotated[
        tuple[Issuer, ...], Meta(description="Identity providers whose tokens (JWT) are let in.")
    ] = ()
    client_secrets: Annotated[
        ClientSecrets | None,
        Meta(description="Make short-lived keys at `/v1/realtime/client_secrets`; left out, nobody does."),
    ] = None
    policies: Annotated[
        dict[str, Policy], Meta(description="What sessions are like, by the name that callers refer to.")
    ] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.keys or self.peers or self.certificates or self.issuers):
            raise ValueError(
                "no keys, so nobody could connect: paste the lines that `rtpipe keys new ID` prints"
            )
        entries: list[tuple[str, Caller]] = [(f"keys[{i}]", key) for i, key in enumerate(self.keys)]
        entries += [(f"peers[{i}]", peer) for i, peer in enumerate(self.peers)]
        entries += [(f"certificates[{i}]", each) for i, each in enumerate(self.certificates)]
        entries += [(f"issuers[{i}]", each) for i, each in enumerate(self.issuers)]
        first: dict[str, tuple[str, Caller]] = {}
        for place, caller in entries:
            if caller.policy is not None and caller.policy not in self.policies:
                raise ValueError(
                    f"{place} names the policy {caller.policy!r}: write [plugins.….policies.NAME]"
                )
            earlier, other = first.setdefault(caller.id, (place, caller))
            ours = msgspec.structs.asdict(caller.principal())
            theirs = msgspec.structs.asdict(other.principal())
            if differing := [name for name in ours if ours[name] != theirs[name]]:
                raise ValueError(
                    f"{earlier} and {place} are both {caller.id!r} but differ in "
                    f"{', '.join(differing)}: make these equal, or give one of them another id"
                )
