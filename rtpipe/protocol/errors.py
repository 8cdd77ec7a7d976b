"""Error codes the upstream is known to send, and the shape of its HTTP errors.

An `error` event leaves the session open unless its code says otherwise. `rate_limit` failures of a response
come as `response.done` with `status: "failed"`, not as an `error` event. Builders and readers of the event
are in events.py.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from rtpipe.protocol.catalogue import Json

Severity = Literal["benign", "retry", "mistake", "terminal"]
"""benign: nothing was lost, go on. retry: the same may succeed later. mistake: the event was wrong and will
be refused again. terminal: this session, or this key, is at its end; do not reconnect in a loop."""

SEVERITIES: Final[Mapping[str, Severity]] = MappingProxyType(
    {
        "conversation_already_has_active_response": "retry",  # after the active one's response.done
        "response_cancel_not_active": "benign",
        "session_expired": "terminal",  # 60 minutes; a close 1001 follows
        "beta_api_shape_disabled": "terminal",  # a beta header was sent; close 4000
        "unknown_parameter": "mistake",  # the whole event is refused; `param` names the field
        "missing_required_parameter": "mistake",
        "invalid_value": "mistake",
        "cannot_update_voice": "mistake",  # after the first audio; the whole update is refused
        "input_audio_buffer_commit_empty": "benign",
        "item_create_duplicate_item_id": "benign",
        "item_retrieve_invalid_item_id": "benign",
        "item_delete_invalid_item_id": "benign",
        "item_truncate_invalid_item_id": "benign",
        "invalid_api_key": "terminal",  # HTTP 401, or the first event of an opened socket
        "invalid_model": "terminal",
        "model_not_found": "terminal",
        "insufficient_quota": "terminal",
        "credit_balance_exhausted": "terminal",
        "billing_hard_limit_reached": "terminal",
        "account_deactivated": "terminal",
        "inference_rate_limit_exceeded": "retry",  # in response.done
        "rate_limit_exceeded": "retry",
        "call_id_not_found": "terminal",
    }
)


def severity(code: str | None) -> Severity | None:
    """How bad an error code is; None for a code nobody has recorded."""
    return SEVERITIES.get(code) if code is not None else None


def http_error(status: int, message: str, code: str | None, type_: str | None = None) -> Json:
    """The JSON body of an HTTP error as OpenAI shapes it; clients' SDKs read `error.message` and
    `error.code`.

    Without `type_` the status decides: `server_error` from 500 on, `rate_limit_exceeded` for 429, otherwise
    `invalid_request_error`.
    """
    if type_ is None:
        type_ = "server_error" if status >= 500 else "invalid_request_error"
        type_ = "rate_limit_exceeded" if status == 429 else type_
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}
