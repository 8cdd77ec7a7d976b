"""Records that only a holder of the key can read, and that are good in their own place alone."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rtpipe.api.errors import ConfigError
from rtpipe.chain.discovery import AnyPlugin
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.config_session import MIB, PersistKey

LEAST_CHARS: Final = 32
MOST_BYTES: Final = 8 * MIB
"""Of a conversation that is written as one record, of which the store takes 16 MiB."""
_FORMAT: Final = b"\x01"
_NONCE_BYTES: Final = 12
_WITHOUT_LIBRARY: Final = 'cryptography is not installed: pip install "rtpipe-gateway[persist]"'


class Unreadable(Exception):
    """A record that cannot be opened; the text says why, and nothing of what is in it."""


class Sealer:
    """AES-256-GCM, with the name of the record as associated data. The first key seals, every one opens.

    A record is a format byte, the length of the key's id, the id, a random nonce of 12 bytes, and the
    ciphertext with its tag. Each name has its own key, derived from the operator's: under one key, random
    nonces of that length are good for 2^32 records (NIST SP 800-38D, 8.3), some months of a busy gateway.
    """

    def __init__(self, keys: Sequence[PersistKey]) -> None:
        """Reads the secrets. Raises ``ConfigError`` for one that is missing or too short."""
        self._secrets = {key.id: _checked(key.secret.reveal()) for key in keys}

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def seal(self, name: str, data: bytes) -> bytes:
        """*data* as it may stand in a record of that name."""
        key_id, secret = next(iter(self._secrets.items()))
        head = _FORMAT + bytes([len(key_id)]) + key_id.encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + bytes(_cipher(secret, name).encrypt(nonce, data, head + name.encode()))

    def open(self, name: str, record: bytes) -> bytes:
        """What was sealed. Raises ``Unreadable``."""
        from cryptography.exceptions import InvalidTag

        size = 2 + (record[1] if len(record) > 1 else 0)
        head, rest = record[:size], record[size:]
        if not record.startswith(_FORMAT) or len(rest) < _NONCE_BYTES:
            raise Unreadable("it is not one of ours, or damaged")
        key_id = head[2:].decode("ascii", "replace")
        secret = self._secrets.get(key_id)
        if secret is None:
            raise Unreadable(f"its key {key_id!a} is not among persist.keys")
        try:
            sealed = rest[_NONCE_BYTES:]
            return bytes(_cipher(secret, name).decrypt(rest[:_NONCE_BYTES], sealed, head + name.encode()))
        except InvalidTag:
            raise Unreadable(f"the key {key_id!a} is another than it was, or the record is damaged") from None


def check_persist(loaded: Loaded, plugins: Mapping[str, AnyPlugin], configs: Mapping[str, object]) -> None:
    """See that every key can be used, and that where a stage wants sessions to be persisted they can be.

    *plugins* and *configs* are by the stage's name. Raises ``ConfigError``.
    """
    keys = loaded.config.persist.keys
    for i, key in enumerate(keys):
        if key.id in (other.id for other in keys[:i]):
            raise loaded.sources.error(("persist", "keys", i, "id"), "another key has this id")
        try:
            _checked(key.secret.reveal())
        except ConfigError as exc:
            raise loaded.sources.error(("persist", "keys", i, "secret"), str(exc)) from None
    session = loaded.config.session
    for stage, plugin in plugins.items():
        if stage not in configs or not plugin.wants_persistence(configs[stage]):
            continue
        if not keys:
            what = "its callers' sessions are to be persisted, and there is no key: write one in persist.keys"
            raise loaded.sources.error(("plugins", stage), what)
        if not session.resume_window_s:
            what = f"{stage} has sessions persisted, and with 0 nobody resumes one: write more, or no persist"
            raise loaded.sources.error(("session", "resume_window_s"), what)
        if session.conversation_bytes > MOST_BYTES:
            what = f"{stage} has sessions persisted, each written whole: write {MOST_BYTES} at most"
            raise loaded.sources.error(("session", "conversation_bytes"), what)


def _checked(secret: str) -> str:
    """Raises ``ConfigError`` for a secret that is none, and where there is nothing to seal with."""
    if len(secret) < LEAST_CHARS:
        what = f"this secret has fewer than {LEAST_CHARS} characters: make one with `openssl rand -base64 32`"
        raise ConfigError(what)
    try:
        import cryptography  # noqa: F401 - only whether it is there
    except ImportError:
        raise ConfigError(_WITHOUT_LIBRARY) from None
    return secret


def _cipher(secret: str, name: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"rtpipe persist " + name.encode()
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=info).derive(secret.encode()))
