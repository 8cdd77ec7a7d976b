"""What the operator writes: keys and peers, and what each of them allows.

Mistakes are ``ValueError`` here, not ``ConfigError``: msgspec adds to them where in the file they are.
"""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from rtpipe import Principal, Secret

ROLES = ("session", "tools", "tap", "admin")
ID_RULE = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_Number = Annotated[int, Meta(ge=0, le=2**32 - 2)]  # the last one means nobody
_Role = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]


def checked_id(text: str) -> str:
    """*text* if it may name a caller in logs, metrics and files; ``ValueError`` otherwise."""
    if not _ID.fullmatch(text):
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

    def __post_init__(self) -> None:
        checked_id(self.id)
        if unknown := sorted(self.roles.difference(ROLES)):
            raise ValueError(f"{self.id!r} has the unknown role {unknown[0]!r}: use {', '.join(ROLES)}")

    def principal(self) -> Principal:
        """The caller this entry stands for."""
        return Principal(
            id=self.id,
            labels=self.labels,
            roles=self.roles,
            models=self.models,
            tools=self.tools,
            voices=self.voices,
            modalities=self.modalities,
            limits=self.limits,
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


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.auth]``."""

    keys: Annotated[tuple[Key, ...], Meta(description="The keys that are let in.")] = ()
    peers: Annotated[
        tuple[PeerRule, ...],
        Meta(
            description="Users and groups of this machine that are let in on Unix sockets; the first counts."
        ),
    ] = ()

    def __post_init__(self) -> None:
        if not self.keys and not self.peers:
            raise ValueError(
                "no keys, so nobody could connect: paste the lines that `rtpipe keys new ID` prints"
            )
        entries: list[tuple[str, Caller]] = [(f"keys[{i}]", key) for i, key in enumerate(self.keys)]
        entries += [(f"peers[{i}]", peer) for i, peer in enumerate(self.peers)]
        first: dict[str, tuple[str, Caller]] = {}
        for place, caller in entries:
            earlier, other = first.setdefault(caller.id, (place, caller))
            ours = msgspec.structs.asdict(caller.principal())
            theirs = msgspec.structs.asdict(other.principal())
            if differing := [name for name in ours if ours[name] != theirs[name]]:
                raise ValueError(
                    f"{earlier} and {place} are both {caller.id!r} but differ in "
                    f"{', '.join(differing)}: make these equal, or give one of them another id"
                )
