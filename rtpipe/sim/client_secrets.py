"""Client secrets: keys for browsers, made by POST /v1/realtime/client_secrets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import trio
from msgspec import Meta

from . import wire
from .ids import Ids
from .options import SimOptions
from .session import opening

DEFAULT_SECONDS = 600


class ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Meta(ge=10, le=7200)] = DEFAULT_SECONDS


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of the request, as in openai-python's `ClientSecretCreateParams`."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "realtime"})


@dataclass(frozen=True)
class Secret:
    """`session`: the configuration that is bound to it."""

    expires: float
    session: dict[str, Any]

    @property
    def expired(self) -> bool:
        return trio.current_time() >= self.expires


class ClientSecrets:
    """The secrets of one server. They may be used as often as one likes until they expire."""

    def __init__(self, options: SimOptions) -> None:
        self._options = options
        self._ids = Ids(options.seed)
        self._made: dict[str, Secret] = {}

    def make(self, body: bytes) -> dict[str, Any]:
        """The answer to the request with this body. Raises ClientError."""
        try:
            asked = msgspec.json.decode(body or b"{}", type=Asked)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise wire.refusal(str(error)) from None
        # The session is judged as one of a session.update is, and bound to the secret.
        wire.check({"type": "session.update", "session": asked.session})
        seconds = asked.expires_after.seconds
        session = opening(self._ids, self._options, asked.session.get("model"), asked.session)
        value = self._ids.new("ek")
        self._made[value] = Secret(trio.current_time() + seconds, asked.session)
        return {"value": value, "expires_at": int(time.time()) + seconds, "session": session}

    def find(self, key: str | None) -> Secret | None:
        return self._made.get(key) if key else None
