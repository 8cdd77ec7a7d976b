"""The errors that cross the line between host and plugin."""

from collections.abc import Mapping


class RtpipeError(Exception):
    """Base of everything rtpipe raises on purpose."""


class ConfigError(RtpipeError):
    """An operator's mistake. The text is one line: where, what, what to do."""


class Refused(RtpipeError):
    """A connection is not let in: *status* becomes the HTTP answer to its handshake.

    *message* is shown to the caller, so it names nothing secret; *code* is a short machine word
    (``invalid_api_key``). *headers* may carry, say, ``Retry-After``.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


class HookFailed(RtpipeError):
    """A plugin's hook raised, ran out of time or returned nonsense, and its policy is to fail."""

    def __init__(self, stage: str, hook: str, why: str) -> None:
        super().__init__(f"{stage}.{hook}: {why}")
        self.stage = stage
        self.hook = hook
        self.why = why


class QueueFull(RtpipeError):
    """More was injected or held than the host keeps in memory for one session."""
