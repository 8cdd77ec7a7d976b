"""Rate limits of one session: requests and tokens in any minute, refilled continuously."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from .failures import FAILURES, Failure

_TIER_1 = {"requests": 200, "tokens": 40_000}


@dataclass
class _Bucket:
    name: str
    limit: int
    used: float = 0
    at: float = 0

    def refill(self) -> None:
        now = trio.current_time()
        self.used = max(0.0, self.used - (now - self.at) * self.limit / 60)
        self.at = now

    def view(self) -> dict[str, Any]:
        return _view(self.name, self.limit, self.used)


class RateLimits:
    """Without a limit of its own a session refuses nothing, and reports tier 1 of the published limits with
    the last response alone counted: so its events do not depend on the clock."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        chosen = (("requests", requests), ("tokens", tokens))
        self._buckets = {name: _Bucket(name, limit) for name, limit in chosen if limit is not None}

    def take(self, tokens: int) -> Failure | None:
        """Count a response that reads so many tokens, or say why it fails."""
        asked = (
            ("requests", 1, "rate_limit_exceeded"),
            ("tokens", tokens, "inference_rate_limit_exceeded"),
        )
        for name, amount, code in asked:
            if bucket := self._buckets.get(name):
                bucket.refill()
                if bucket.used + amount > bucket.limit:
                    return FAILURES[code]
        for name, amount, _ in asked:
            if bucket := self._buckets.get(name):
                bucket.used += amount
        return None

    def spend(self, tokens: int) -> None:
        """Count what a response wrote; this may go beyond the limit, and is owed."""
        if bucket := self._buckets.get("tokens"):
            bucket.used += tokens

    def event(self, total_tokens: int) -> dict[str, Any]:
        """rate_limits.updated after a response of so many tokens."""
        limits = []
        for name, used in (("requests", 1), ("tokens", total_tokens)):
            if bucket := self._buckets.get(name):
                bucket.refill()
                limits.append(bucket.view())
            else:
                limits.append(_view(name, _TIER_1[name], used))
        return {"type": "rate_limits.updated", "rate_limits": limits}


def _view(name: str, limit: int, used: float) -> dict[str, Any]:
    return {
        "name": name,
        "limit": limit,
        "remaining": max(0, int(limit - used)),
        "reset_seconds": round(60 * min(used, limit) / limit, 3),
    }
