"""Every way a connection is refused, as one HTTP status, one code and one sentence."""

from http import HTTPStatus

from rtpipe.api.errors import Refused
from rtpipe.transport.dialer import DialFailed, DialRefused, DialTimeout


def for_dial(exc: DialRefused | DialFailed | DialTimeout) -> Refused:
    """What the client is told when the upstream cannot be had.

    The upstream's own words may quote our key, so they stay here; its status and Retry-After travel.
    """
    match exc:
        case DialRefused():
            status = exc.status if exc.status in _ERRORS else 502
            headers = {}
            # A header is passed on only if it can be: what is not ASCII would fail our own answer.
            if (retry_after := exc.headers.get("retry-after")) is not None and retry_after.isascii():
                headers["Retry-After"] = retry_after
            message = f"The model's server refused the connection with status {exc.status}."
            return Refused(status, "upstream_refused", message, headers)
        case DialTimeout():
            return Refused(504, "upstream_timeout", "The model's server did not answer in time.")
        case DialFailed():
            return Refused(502, "upstream_unreachable", "The model's server cannot be reached.")


_ERRORS = frozenset(int(status) for status in HTTPStatus if status >= 400)

TIMED_OUT = Refused(504, "connect_timeout", "The connection could not be set up in time.")
NOT_FOR_US = "rtpipe speaks the Realtime protocol over WebSocket"
