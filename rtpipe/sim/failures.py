"""How a response can fail: `response.done` with status failed (or incomplete, for the content filter)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Failure(NamedTuple):
    """`midway`: after half of what it has to say; otherwise before any of it, and at no cost."""

    code: str
    type: str
    message: str
    midway: bool = False

    @property
    def status(self) -> str:
        return "incomplete" if self.code in (CONTENT_FILTER, MAX_OUTPUT_TOKENS) else "failed"

    def details(self) -> dict[str, Any]:
        if self.status == "incomplete":
            return {"type": "incomplete", "reason": self.code}
        error = {"type": self.type, "code": self.code, "message": self.message}
        return {"type": "failed", "error": error}


CONTENT_FILTER = "content_filter"
MAX_OUTPUT_TOKENS = "max_output_tokens"

# Provoked by the words `fail CODE`.
FAILURES = {
    failure.code: failure
    for failure in (
        Failure(CONTENT_FILTER, "", "", midway=True),
        Failure(
            "server_error",
            "server_error",
            "The server had an error while processing your request. Sorry about that!",
            midway=True,
        ),
        Failure("rate_limit_exceeded", "rate_limit_exceeded", "Rate limit reached: too many requests."),
        Failure("inference_rate_limit_exceeded", "invalid_request_error", "too many tokens"),
        Failure("insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
        Failure("credit_balance_exhausted", "insufficient_quota", "Your credit balance is exhausted."),
        Failure("billing_hard_limit_reached", "insufficient_quota", "Billing hard limit has been reached."),
        Failure("account_deactivated", "invalid_request_error", "The account is deactivated."),
    )
}
