"""Errors as OpenAI shapes them.

`{"type": "error", "event_id": …, "error": {"type", "code", "message", "param", "event_id"}}`, where
`error.event_id` is the id of the client event at fault. Most errors leave the session open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ClientError(Exception):
    """A client event that is answered with an `error` event and has no other effect."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def event(self, client_event_id: str | None) -> dict[str, Any]:
        return {
            "type": "error",
            "error": error_object(self.code, self.message, self.param) | {"event_id": client_event_id},
        }


def error_object(code: str | None, message: str, param: str | None = None) -> dict[str, Any]:
    return {"type": "invalid_request_error", "code": code, "message": message, "param": param}


def invalid_value(param: str, value: object, supported: Iterable[str]) -> ClientError:
    listed = ", ".join(f"'{name}'" for name in supported)
    return ClientError(
        "invalid_value", f"Invalid value: {value!r:.200}. Supported values are: {listed}.", param
    )
