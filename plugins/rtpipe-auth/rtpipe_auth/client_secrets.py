"""Client secrets: short-lived keys for browsers, in the shape of OpenAI's.

What a secret stands for is kept in the store, not in the secret: whoever holds it cannot read it, and it fits
into a header. It is signed, so that nobody who guesses makes us look into the store.
"""

import base64
import hashlib
import heapq
import hmac
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from rtpipe import END_USER, Principal, Refused, Store, StoreError
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.permissions import forbidden
from rtpipe_auth.credentials import unauthorized

PATH: Final = "/v1/realtime/client_secrets"
PREFIX: Final = "ek_"
MAX_SESSION_BYTES: Final = 32 * 1024
MAX_BYTES: Final = 64 * 2**20
"""That one caller's living secrets may take up in the store."""
_ID_BYTES: Final = 12
_TIME_BYTES: Final = 5
_KINDS: Final = ("realtime", "transcription")


class ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Meta(ge=10, le=7200)] = 600


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of the request, as openai-python's `ClientSecretCreateParams`."""

    expires_after: ExpiresAfter | None = None
    session: dict[str, Any] | None = None


class _Living:
    """The secrets of one caller that have not expired: when each will, and how much it takes up."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, int]] = []
        self._bytes = 0

    def add(self, now: float, expires_at: float, size: int) -> bool:
        """Returns whether there was room."""
        while self._ends and self._ends[0][0] <= now:
            self._bytes -= heapq.heappop(self._ends)[1]
        if self._bytes + size > MAX_BYTES:
            return False
        heapq.heappush(self._ends, (expires_at, size))
        self._bytes += size
        return True


class Minter:
    """Makes secrets and knows them again. The first of *keys* signs, all are accepted; *now*: wall clock."""

    def __init__(self, keys: Sequence[bytes], store: Store, now: Callable[[], float]) -> None:
        self._keys = keys
        self._store = store
        self._now = now
        self._living: defaultdict[str, _Living] = defaultdict(_Living)

    async def mint(self, caller: Principal, body: bytes, end_user: str | None) -> dict[str, object]:
        """The answer to a request of *caller*'s, who speaks for *end_user*. Raises ``Refused``."""
        asked = _read(body)
        session = {"type": "realtime", **(asked.session or {})}
        _check(session, caller)
        seconds = (asked.expires_after or ExpiresAfter()).seconds
        expires_at = int(self._now()) + seconds
        if caller.expires_at is not None:
            expires_at = min(expires_at, int(caller.expires_at))
        labels = caller.labels if end_user is None else {**caller.labels, END_USER: end_user}
        bound = msgspec.structs.replace(caller, labels=labels, roles=frozenset({"session"}), session=session)
        record = msgspec.json.encode(bound)
        if not self._living[caller.credential].add(self._now(), expires_at, len(record)):
            message = "Too many client secrets of this key are alive; wait until some have expired."
            raise Refused(429, "too_many_client_secrets", message, {"Retry-After": "60"})
        name = secrets.token_bytes(_ID_BYTES)
        try:
            await self._store.put(_key(name), record, float(seconds))
        except StoreError:
            message = "No client secret can be made just now; try again later."
            raise Refused(503, "client_secrets_unavailable", message) from None
        head = name + expires_at.to_bytes(_TIME_BYTES)
        value = PREFIX + _encode(head + _sign(self._keys[0], head))
        shown = {"id": f"sess_{secrets.token_hex(8)}", "object": "realtime.session", **session}
        return {"value": value, "expires_at": expires_at, "session": shown}

    async def holder(self, key: str) -> Principal:
        """The principal of a secret that came as a key. Raises ``Refused``."""
        data = _decode(key.removeprefix(PREFIX))
        head, signature = data[: _ID_BYTES + _TIME_BYTES], data[_ID_BYTES + _TIME_BYTES :]
        # No early exit: how long this takes says nothing.
        if not any([hmac.compare_digest(signature, _sign(each, head)) for each in self._keys]):
            raise unauthorized("invalid_api_key", "Incorrect key provided: this client secret is not ours.")
        expired = unauthorized("client_secret_expired", "This client secret has expired: get another one.")
        if int.from_bytes(head[_ID_BYTES:]) <= self._now():
            raise expired
        try:
            record = await self._store.get(_key(head[:_ID_BYTES]))
        except StoreError:
            message = "No client secret can be looked up just now; try again later."
            raise Refused(503, "client_secrets_unavailable", message) from None
        if record is None:
            raise expired
        return msgspec.json.decode(record, type=Principal)


def _read(body: bytes) -> Asked:
    try:
        return msgspec.json.decode(body or b"{}", type=Asked)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid("The body is no JSON") from None


def _check(session: dict[str, Any], caller: Principal) -> None:
    if session["type"] not in _KINDS:
        raise _invalid("session.type is realtime or transcription")
    model = session.get("model")
    if not (model is None or isinstance(model, str)):
        raise _invalid("session.model is a text")
    if len(msgspec.json.encode(session)) > MAX_SESSION_BYTES:
        raise _invalid(f"The session has more than {MAX_SESSION_BYTES} bytes")
    if sc.has_odd_container(session):
        raise _invalid("session.audio, its input and its output are objects")
    if model is not None and caller.models is not None and model not in caller.models:
        raise Refused(403, "model_not_allowed", "This key may not use the model of the session.")
    found = forbidden(session, tools=caller.tools, voices=caller.voices, modalities=caller.modalities)
    if found is not None:
        raise Refused(403, *found)


def _invalid(what: str) -> Refused:
    return Refused(400, "invalid_request", f"{what}.")


def _key(name: bytes) -> str:
    return f"secret/{name.hex()}"


def _sign(key: bytes, head: bytes) -> bytes:
    return hmac.new(key, b"rtpipe client secret 1" + head, hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
