"""What somebody should look at. Each alarm is raised once in its period, as a fact; what becomes of it is the
host's affair."""

from collections import deque
from typing import TYPE_CHECKING

from rtpipe import Session, facts
from rtpipe_cost_governor.bill import Bill
from rtpipe_cost_governor.books import Cap
from rtpipe_cost_governor.config import Alerting, micro
from rtpipe_cost_governor.state import State

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

_HOUR_S = 3600
_LEAST_SPIKE = 1_000_000
"""A spike of less than a dollar an hour wakes nobody."""
_LEAST_ANSWERS = 20
_REMEMBERED = 10_000


class Hour:
    """What one hour came to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.micro_usd = 0
        self.sessions: set[str] = set()


class Alarms:
    """Watches what is spent, across all sessions of this process."""

    def __init__(self, governor: "CostGovernor") -> None:
        self._governor = governor
        self._raised: dict[tuple[str, str], None] = {}
        self._answers: deque[bool] = deque(maxlen=100)
        self._hours: deque[Hour] = deque(maxlen=25)

    @property
    def _config(self) -> Alerting:
        return self._governor.config.alerts

    def budget(self, session: Session[State], cap: Cap, fraction: float) -> None:
        """A budget is used up to this fraction."""
        if fraction >= self._config.budget_fraction:
            of = session.id if cap.what == "conversation" else session.principal.id
            message = f"{fraction:.0%} of the budget of {of} for its {cap.what} is used up"
            self._raise("budget", f"{cap.key} {cap.limit}", message, {"budget": cap.what, "of": of})

    def spent(self, session: Session[State], bill: Bill) -> None:
        """Something was spent."""
        if session.state.image_micro_usd >= micro(self._config.images_usd):
            message = (
                f"the images of session {session.id} have cost {session.state.image_micro_usd / 1e6:.2f} USD"
            )
            self._raise("images", session.id, message, {"of": session.id})
        number = int(self._governor.books.now() // _HOUR_S)
        if not self._hours or self._hours[-1].number != number:
            self._hours.append(Hour(number))
        hour, *before = reversed(self._hours)
        hour.micro_usd += bill.micro_usd
        hour.sessions.add(session.id)
        if len(before) < 3 or hour.micro_usd < _LEAST_SPIKE:
            return
        usual = sum(each.micro_usd for each in before) / len(before)
        usual_sessions = sum(len(each.sessions) for each in before) / len(before)
        if hour.micro_usd > usual * self._config.spike_factor and len(hour.sessions) <= usual_sessions * 1.5:
            message = (
                f"{hour.micro_usd / 1e6:.2f} USD this hour, usually {usual / 1e6:.2f}, with no more sessions"
            )
            self._raise("spike", str(number), message, {"hour": str(number)})

    def tool(self, fact: facts.ToolCalled) -> None:
        """A tool has answered, or not."""
        if fact.duration_s > self._config.tool_s:
            day = self._governor.periods.day(self._governor.books.now())
            message = f"the tool {fact.name or '(unknown)'} took {fact.duration_s:.1f} s"
            self._raise("slow-tool", f"{day} {fact.name}", message, {"tool": fact.name, "day": day})

    def answered(self, *, failed: bool) -> None:
        """An answer is over."""
        self._answers.append(failed)
        rate = sum(self._answers) / len(self._answers)
        if len(self._answers) >= _LEAST_ANSWERS and rate > self._config.error_rate:
            hour = str(int(self._governor.books.now() // _HOUR_S))
            message = f"{rate:.0%} of the last {len(self._answers)} answers failed"
            self._raise("errors", hour, message, {"hour": hour})

    def _raise(self, name: str, period: str, message: str, labels: dict[str, str]) -> None:
        if (name, period) in self._raised:
            return
        self._raised[name, period] = None
        if len(self._raised) > _REMEMBERED:
            del self._raised[next(iter(self._raised))]
        self._governor.record(
            facts.Alerted(stage=self._governor.stage, name=name, message=message, labels=labels)
        )
