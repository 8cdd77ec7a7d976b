"""The errors that cross the line between host and plugin."""

from collections.abc import Mapping
from itertools import chain


class RtpipeError(Exception):
    """Base of everything rtpipe raises on purpose."""


class ConfigError(RtpipeError):
    """An operator's mistake. The text is one line: where, what, what to do."""


class Refused(RtpipeError):
    """A connection is not let in: *status* becomes the HTTP answer to its handshake.

    *message* is shown to the caller, so it names nothing secret; *code* is a short machine word
    (``invalid_api_key``). *headers* may carry, say, ``Retry-After``. Raises ``ValueError`` for what cannot
    stand in an HTTP answer: a status outside 400 to 599, headers that are not printable ASCII.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        if not 400 <= status <= 599:
            raise ValueError(f"Refused wants a status from 400 to 599, not {status}")
        for text in chain.from_iterable((headers or {}).items()):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("Refused wants headers of printable ASCII")
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
