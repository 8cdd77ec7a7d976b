"""Signs of failure: what many calls have in common and none of them shows alone. They become alerts."""

from collections import Counter, deque
from collections.abc import Callable

from rtpipe.api.event import CLIENT, HOST
from rtpipe.api.facts import (
    Alerted,
    Fact,
    LegChanged,
    SessionClosed,
    SessionOpened,
    Spent,
    ToolCalled,
)
from rtpipe.api.store import StoreError
from rtpipe.daemon.config_observe import Signs as Config

_KEPT = 100_000
"""How many facts are looked at together at most; the oldest are forgotten first."""
_FAILED = frozenset({"error", "timeout", "invalid", "breaker", "busy", "invented"})
_AFTER = ("late-offered", "late-dropped", "left")
"""Of a call that has been counted when it timed out or its session ended."""
_MORE_SESSIONS = 1.2
"""So many times as many sessions explain that more is spent."""


class Window:
    """What was in the last *seconds*: sums by key."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[tuple[float, str, float]] = deque()
        self._sums: Counter[str] = Counter()

    def add(self, now: float, key: str, amount: float = 1) -> None:
        if len(self._entries) >= _KEPT:
            self._forget()
        self._entries.append((now, key, amount))
        self._sums[key] += amount  # type: ignore[assignment]
        self.settle(now)

    def settle(self, now: float) -> None:
        """Forget what is too old."""
        while self._entries and self._entries[0][0] <= now - self._seconds:
            self._forget()

    def sum(self, key: str) -> float:
        return self._sums[key]

    def _forget(self) -> None:
        _, key, amount = self._entries.popleft()
        self._sums[key] -= amount  # type: ignore[assignment]
        if self._sums[key] <= 0:
            del self._sums[key]


class Signs:
    """Looks at facts, and records an ``Alerted`` for each sign, at most one in a window."""

    def __init__(
        self, config: Callable[[], Config], now: Callable[[], float], record: Callable[[Fact], None]
    ) -> None:
        self._config_in_force = config
        self._now = now
        self._record = record
        self._window = Window(config().window_s)
        # Twice as long: what was spent in the window before this one is the difference.
        self._longer = Window(2 * config().window_s)
        self._last_call_s: dict[str, float] = {}
        """When the tool of a session in service was last called."""
        self._alerted_s: dict[str, float] = {}

    @property
    def _config(self) -> Config:
        return self._config_in_force()

    def fact(self, fact: Fact) -> None:
        """See what became of something."""
        now = self._now()
        match fact:
            case SessionOpened():
                self._add(now, "sessions")
            case LegChanged(change="replaced" | "resumed"):
                self._add(now, "reconnects")
                self._reconnects()
            case ToolCalled() if fact.status not in _AFTER:
                self._tool_called(fact, now)
            case Spent():
                self._add(now, "micro_usd", fact.micro_usd)
                self._cost()
            case SessionClosed():
                self._closed(fact, now)

    def store_failed(self, error: StoreError) -> None:
        """See that something could not be written down, or read. More of them are only counted."""
        self._say("store_failed", str(error))

    def _add(self, now: float, key: str, amount: float = 1) -> None:
        for window in (self._window, self._longer):
            window.add(now, key, amount)

    def _tool_called(self, fact: ToolCalled, now: float) -> None:
        if fact.session:
            self._last_call_s[fact.session] = now
        self._window.add(now, "calls")
        if fact.status in _FAILED:
            self._window.add(now, "failed calls")
        same = f"calls of {fact.name!a} with {fact.digest} in {fact.session}"
        self._window.add(now, same)
        if (count := self._window.sum(same)) >= self._config.repeated_calls:
            what = f"{count:.0f} equal calls of the tool {fact.name} in one session"
            self._alert("repeated_calls", what, tool=fact.name, session=fact.session)
        self._share(
            "tool_errors", "failed calls", "calls", self._config.tool_error_rate, "of tool calls failed"
        )

    def _reconnects(self) -> None:
        reconnects, sessions = self._window.sum("reconnects"), self._window.sum("sessions")
        enough = reconnects >= self._config.min_sample
        if enough and reconnects > self._config.reconnect_rate * max(1, sessions):
            self._alert("reconnects", f"{reconnects:.0f} reconnects, {sessions:.0f} sessions began")

    def _cost(self) -> None:
        now, sessions = self._window.sum("micro_usd"), self._window.sum("sessions")
        before = self._longer.sum("micro_usd") - now
        sessions_before = self._longer.sum("sessions") - sessions
        if now < self._config.cost_usd * 1e6 or before <= 0 or now <= before * self._config.cost_factor:
            return
        if sessions <= sessions_before * _MORE_SESSIONS:
            self._alert("cost_spike", f"${now / 1e6:.2f} spent, ${before / 1e6:.2f} in the window before")

    def _closed(self, fact: SessionClosed, now: float) -> None:
        called_s = self._last_call_s.pop(fact.session, None)
        self._window.add(now, "ends")
        if fact.cause == CLIENT and called_s is not None and now - called_s <= self._config.left_after_tool_s:
            self._window.add(now, "ends after a tool")
        rate = self._config.left_after_tool_rate
        self._share("left_after_tool", "ends after a tool", "ends", rate, "of callers left after a tool call")

    def _share(self, name: str, part: str, whole: str, limit: float, what: str) -> None:
        some, all_ = self._window.sum(part), self._window.sum(whole)
        if all_ >= self._config.min_sample and some > limit * all_:
            self._alert(name, f"{some / all_:.0%} {what} ({some:.0f} of {all_:.0f})")

    def _alert(self, name: str, what: str, **labels: str) -> None:
        self._say(name, f"{what} within {self._config.window_s:g} s", **labels)

    def _say(self, name: str, message: str, **labels: str) -> None:
        now, last = self._now(), self._alerted_s.get(name)
        if last is not None and now - last < self._config.window_s:
            return
        self._alerted_s[name] = now
        self._record(Alerted(stage=HOST, name=name, message=message, labels=labels))
