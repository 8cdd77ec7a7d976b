"""Who is let in, and with which session: judged from the request of the handshake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .client_secrets import ClientSecrets
from .errors import ClientError
from .http import BadRequest, Request
from .options import SimOptions

BETA_CLOSE_CODE = 4000
KEY_CLOSE_CODE = 3000
MODEL_CLOSE_CODE = 4000
_KEY_SUBPROTOCOL = "openai-insecure-api-key."
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


@dataclass(frozen=True)
class Credential:
    """A client that is let in. `bound`: the session configuration it begins with."""

    model: str | None
    bound: dict[str, Any] | None


@dataclass(frozen=True)
class InBand:
    """A client that is let in only to be told why it is not: first the error, then the close."""

    close_code: int
    error: ClientError
    at_first_event: bool = False


class Door:
    def __init__(self, options: SimOptions, secrets: ClientSecrets) -> None:
        self._options = options
        self._secrets = secrets

    def check_key(self, request: Request) -> None:
        """Raises BadRequest for a key that is none of those accepted."""
        if self._options.api_keys is not None and _header_key(request) not in self._options.api_keys:
            raise BadRequest(401, _WRONG_KEY.message, code=_WRONG_KEY.code)

    def admit(self, request: Request) -> Credential | InBand:
        """Raises BadRequest where the handshake itself is refused.

        What OpenAI says in band, and with which close code, is what clients have logged: 4000 for the beta
        and for a model that is not named, 3000 for a key, with the reason `invalid_request_error.CODE`."""
        if "call_id" in request.query:
            raise BadRequest(404, "There is no such call.", code="call_id_not_found")
        beta = "realtime=v1" in request.headers.get("openai-beta", "")
        if beta or _BETA_SUBPROTOCOL in request.subprotocols:
            return InBand(BETA_CLOSE_CODE, _BETA)
        subprotocol_key = _subprotocol_key(request)
        if secret := self._secrets.find(_header_key(request) or subprotocol_key):
            if secret.expired:
                return InBand(KEY_CLOSE_CODE, _EXPIRED, at_first_event=True)
            return self._admit_model(
                secret.session.get("model") or request.query.get("model"), secret.session
            )
        if subprotocol_key is None or self._options.azure:
            self.check_key(request)
        elif self._options.api_keys is not None and subprotocol_key not in self._options.api_keys:
            # A browser cannot read the status of a failed handshake.
            return InBand(KEY_CLOSE_CODE, _WRONG_KEY)
        if request.query.get("intent") == "transcription":
            return Credential(None, {"type": "transcription"})
        if "model" not in request.query:
            return InBand(MODEL_CLOSE_CODE, _NO_MODEL)
        return self._admit_model(request.query["model"], None)

    def _admit_model(self, model: str | None, bound: dict[str, Any] | None) -> Credential | InBand:
        if self._options.models is not None and model is not None and model not in self._options.models:
            return InBand(MODEL_CLOSE_CODE, _no_such_model(model))
        return Credential(model, bound)


_BETA = ClientError(
    "beta_api_shape_disabled", "The beta shape of the Realtime API is not served: use the GA shape."
)
_EXPIRED = ClientError("invalid_api_key", "Ephemeral token expired")
_WRONG_KEY = ClientError("invalid_api_key", "Incorrect API key provided.")
_NO_MODEL = ClientError("missing_model", "You must provide a model parameter.")


def _no_such_model(model: str) -> ClientError:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ClientError("model_not_found", message)


def _header_key(request: Request) -> str | None:
    """The key of `Authorization: Bearer`, or of Azure's `api-key`."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else request.headers.get("api-key")


def _subprotocol_key(request: Request) -> str | None:
    """The key that a browser can send in no other way."""
    offered = (name for name in request.subprotocols if name.startswith(_KEY_SUBPROTOCOL))
    return next(offered, "").removeprefix(_KEY_SUBPROTOCOL) or None
