"""What a session comes to, added up from its facts."""

import time
from collections import deque
from dataclasses import dataclass

from rtpipe.api.facts import Fact, LegChanged, ResponseEnded, Spent, TurnStarted

_KEPT, _TOLD = 50, 5


@dataclass(frozen=True, slots=True)
class Loss:
    """What a change of a leg could not keep: when that was, in seconds since 1970, which leg, and what."""

    time_s: float
    leg: str
    what: str


class Sums:
    """Turns of the caller, tokens of the responses, micro-dollars that stages said were spent, and losses."""

    def __init__(self) -> None:
        self.turns = 0
        self.tokens = 0
        self.micro_usd = 0
        self.losses: deque[Loss] = deque(maxlen=_KEPT)
        """The last of them."""
        self._lost = 0

    def add(self, fact: Fact) -> None:
        match fact:
            case TurnStarted():
                self.turns += 1
            case ResponseEnded():
                self.tokens += int(fact.usage.get("total", 0))
            case Spent():
                self.micro_usd += fact.micro_usd
            case LegChanged(change="replaced" | "resumed") if fact.cause:
                self.lose(fact.leg, fact.cause)

    def lose(self, leg: str, what: str) -> None:
        """Something could not be kept."""
        self.losses.append(Loss(time.time(), leg, what))
        self._lost += 1

    @property
    def lost(self) -> str:
        """All that was lost in one line; of much, the last."""
        told = [f"{loss.leg}: {loss.what}" for loss in self.losses][-_TOLD:]
        if self._lost > len(told):
            told.insert(0, f"{self._lost - len(told)} times before")
        return "; ".join(told)
