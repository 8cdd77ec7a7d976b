"""The plugin: compares what came with a connection, a key or who the kernel says it is, to what it knows."""

import hashlib
import hmac
from typing import ClassVar

from rtpipe import Command, ConfigError, ConnectRequest, Health, OnError, Plugin, Principal, Refused
from rtpipe_auth.config import Config, Key
from rtpipe_auth.credentials import USABLE_KEY, missing_key, presented_key, unauthorized
from rtpipe_auth.new_key import KEYS


class Auth(Plugin[Config, None]):
    """Lets in who presents a configured key or, on a Unix socket, is a configured user or group."""

    on_error: ClassVar[OnError] = "close"
    on_error_choices: ClassVar[tuple[OnError, ...]] = ("close",)  # nobody gets in because this failed

    _known: tuple[tuple[bytes, Principal], ...]

    def startup(self) -> None:
        """Read the secrets. From here on only hashes of keys are in memory."""
        known: dict[bytes, Principal] = {}
        for key in self.config.keys:
            digest = _digest_of(key)
            principal = known.setdefault(digest, key.principal())
            if principal.id != key.id:
                raise ConfigError(
                    f"keys {principal.id!r} and {key.id!r} are one and the same key: make another for one "
                    f"of them with `rtpipe keys new ID`"
                )
        self._known = tuple(known.items())

    def authenticate(self, request: ConnectRequest) -> Principal:
        """The principal of the key in *request*; raises ``Refused`` otherwise, whatever came."""
        key = presented_key(request)
        caller = self._peer(request) if key is None else self._holder(key)
        if request.role not in caller.roles:
            what = "caller" if key is None else "key"
            raise Refused(
                403,
                "role_not_allowed",
                f"This {what} may not connect as {request.role!r}: its operator grants that with 'roles'.",
            )
        return caller

    def _peer(self, request: ConnectRequest) -> Principal:
        """Who came without a key, if it is a process of this machine that needs none."""
        for peer in self.config.peers:
            if peer.matches(request.uid, request.gid):
                return peer.principal()
        raise missing_key()

    def _holder(self, key: str) -> Principal:
        digest = hashlib.sha256(key.encode("ascii")).digest()
        caller = None
        # No early exit: how long this takes says nothing about which key came close.
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                caller = principal
        if caller is None:
            raise unauthorized("invalid_api_key", "Incorrect key provided: this gateway does not know it.")
        return caller

    def health(self) -> Health:
        """How many are let in."""
        count, peers = len(self._known), len(self.config.peers)
        sentence = f"{count} {'key is' if count == 1 else 'keys are'} let in"
        if peers:
            sentence += f", and {peers} {'peer' if peers == 1 else 'peers'} without one"
        return Health(ok=True, sentence=sentence)

    @classmethod
    def commands(cls) -> list[Command]:
        """``rtpipe keys new ID``."""
        return [KEYS]


def _digest_of(key: Key) -> bytes:
    if key.secret is None:
        return bytes.fromhex(key.sha256 or "")  # Key has checked that it has one of the two
    try:
        secret = key.secret.reveal()
    except ConfigError as exc:
        raise ConfigError(f"key {key.id!r}: {exc}") from None
    if not USABLE_KEY.fullmatch(secret):
        raise ConfigError(
            f"the secret of key {key.id!r} could never be presented: "
            "a key is 1 to 4096 printable ASCII characters without spaces"
        )
    return hashlib.sha256(secret.encode("ascii")).digest()
