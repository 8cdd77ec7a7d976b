import pytest

from rtpipe.protocol.errors import SEVERITIES, http_error, severity


def test_severities() -> None:
    assert severity("session_expired") == "terminal"
    assert severity("conversation_already_has_active_response") == "retry"
    assert severity("unheard_of") is None
    assert severity(None) is None
    assert set(SEVERITIES.values()) == {"benign", "retry", "mistake", "terminal"}


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (401, "invalid_request_error"),
        (404, "invalid_request_error"),
        (429, "rate_limit_exceeded"),
        (503, "server_error"),
    ],
)
def test_http_error(status: int, type_: str) -> None:
    body = {"error": {"message": "Why.", "type": type_, "param": None, "code": "c"}}
    assert http_error(status, "Why.", "c") == body
    assert http_error(status, "Why.", "c", "other")["error"]["type"] == "other"
