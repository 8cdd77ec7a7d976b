"""How a tool fares, over all sessions: whether it is worth calling, and whether to try again."""

from dataclasses import dataclass

OUTAGE_S = 10.0
"""A tool that has failed for so long is out of order: trying again at once is of no use."""


@dataclass(slots=True)
class Health:
    """One tool's breaker: opens after *limit* failures in a row, and tries one call after *open_s*."""

    limit: int
    open_s: float
    failures: int = 0
    failing_since_s: float = 0.0
    opened_s: float | None = None
    trying: bool = False

    @property
    def state(self) -> str:
        """``closed`` (calls run), ``open`` (they do not) or ``half-open`` (one is being tried)."""
        if self.opened_s is None:
            return "closed"
        return "half-open" if self.trying else "open"

    def admits(self, now_s: float) -> bool:
        """Whether a call may run now; one that may, must be reported back."""
        if self.opened_s is None:
            return True
        if self.trying or now_s < self.opened_s + self.open_s:
            return False
        self.trying = True
        return True

    def succeeded(self) -> None:
        self.failures, self.opened_s, self.trying = 0, None, False

    def failed(self, now_s: float) -> None:
        if not self.failures:
            self.failing_since_s = now_s
        self.failures += 1
        if self.trying or self.failures >= self.limit:
            self.opened_s, self.trying = now_s, False

    def undecided(self) -> None:
        """A call was cancelled: it has shown nothing."""
        self.trying = False

    def is_out(self, now_s: float) -> bool:
        """Whether the tool has been failing for ``OUTAGE_S`` or is not called any more."""
        return self.opened_s is not None or (self.failures > 0 and now_s >= self.failing_since_s + OUTAGE_S)
