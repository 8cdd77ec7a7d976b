"""What lets somebody in, and as whom: keys, local users, certificates."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

from rtpipe import ConfigError, ConnectRequest, Principal, Store
from rtpipe_auth.config import Config, Key
from rtpipe_auth.credentials import USABLE_KEY, unauthorized

SHOWN_DIGITS: Final = 16
"""Of a key's hash, where the key has to be named: 64 bits say nothing about 256 random ones."""
_REVOKED: Final = "revoked/"


class Registry:
    """What the configuration names, less what was revoked. *stage* is part of each credential's name."""

    def __init__(self, config: Config, stage: str) -> None:
        """Read the secrets. From here on only hashes of keys are in memory. Raises ``ConfigError``."""
        self._stage = stage
        self._config = config
        self._keys: dict[bytes, Principal] = {}
        for key in config.keys:
            digest = _digest_of(key)
            named = _named(key.principal(), self.credential("key", digest.hex()[:SHOWN_DIGITS]))
            principal = self._keys.setdefault(digest, named)
            if principal.id != key.id:
                raise ConfigError(
                    f"keys {principal.id!r} and {key.id!r} are one and the same key: make another for one "
                    f"of them with `rtpipe keys new ID`"
                )
        self._peers = [
            (each, _named(each.principal(), self.credential("peer", f"{each.uid}:{each.gid}")))
            for each in config.peers
        ]
        self._certificates = {
            each.subject: _named(each.principal(), self.credential("certificate", each.subject))
            for each in config.certificates
        }

    def credential(self, kind: str, name: str) -> str:
        """How a principal says what it was let in by."""
        return f"{self._stage}/{kind}:{name}"

    @property
    def count(self) -> int:
        """Keys that are let in."""
        return len(self._keys)

    def knows(self, credential: str) -> bool | None:
        """Whether it still lets somebody in; ``None`` for one of another stage's."""
        if not credential.startswith(f"{self._stage}/"):
            return None
        issuers = {self.credential("issuer", each.id) for each in self._config.issuers}
        return credential in issuers or credential in self._known()

    def limits(self, credential: str) -> Mapping[str, str | int | float] | None:
        """What whoever it lets in may use; ``None`` where that is not for the configuration alone to say."""
        for each in self._config.issuers:
            if credential == self.credential("issuer", each.id):
                return each.limits if each.claims.limits is None else None
        principal = self._known().get(credential)
        return None if principal is None else principal.limits

    def _known(self) -> dict[str, Principal]:
        """Whom no token lets in, by credential."""
        peers = (principal for _, principal in self._peers)
        known = (*self._keys.values(), *peers, *self._certificates.values())
        return {principal.credential: principal for principal in known}

    def without_key(self, request: ConnectRequest) -> Principal | None:
        """Who came without a key, if the kernel or a certificate says who that is."""
        for peer, principal in self._peers:
            if peer.matches(request.uid, request.gid):
                return principal
        return self._certificates.get(request.subject) if request.subject is not None else None

    def holder(self, key: str) -> Principal | None:
        """Whose key it is."""
        digest = hashlib.sha256(key.encode("ascii")).digest()
        caller = None
        # No early exit: how long this takes says nothing about which key came close.
        for known, principal in self._keys.items():
            if hmac.compare_digest(known, digest):
                caller = principal
        return caller

    async def load_revoked(self, store: Store) -> None:
        """Forget the keys that were revoked earlier."""
        after = ""
        while found := await store.scan(_REVOKED, after=after):
            for name in found:
                self._forget(name.removeprefix(_REVOKED))
                after = name

    async def revoke(self, store: Store, caller: str, prefix: str) -> list[str]:
        """Refuse the keys of *caller* whose hash begins with *prefix*, for good. Returns how the hash of each
        begins. Raises ``StoreError``, and then they are refused until the next start."""
        found = [
            digest.hex()
            for digest, principal in self._keys.items()
            if principal.id == caller and digest.hex().startswith(prefix)
        ]
        for digest in found:
            self._forget(digest)  # first, so that it counts also where the disk does not take it
            await store.put(_REVOKED + digest, b"")
        return [digest[:SHOWN_DIGITS] for digest in found]

    def _forget(self, digest: str) -> None:
        self._keys.pop(bytes.fromhex(digest), None)


def unknown_key() -> Exception:
    """For a key that nobody has."""
    return unauthorized("invalid_api_key", "Incorrect key provided: this gateway does not know it.")


def _named(principal: Principal, credential: str) -> Principal:
    return msgspec.structs.replace(principal, credential=credential)


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
            "a key is 1 to 8192 printable ASCII characters without spaces"
        )
    return hashlib.sha256(secret.encode("ascii")).digest()
