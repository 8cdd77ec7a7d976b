"""What a session comes to, added up from its facts."""

from rtpipe.api.facts import Fact, ResponseEnded, Spent, TurnStarted


class Sums:
    """Turns of the caller, tokens of the responses, and micro-dollars that stages said were spent."""

    def __init__(self) -> None:
        self.turns = 0
        self.tokens = 0
        self.micro_usd = 0

    def add(self, fact: Fact) -> None:
        match fact:
            case TurnStarted():
                self.turns += 1
            case ResponseEnded():
                self.tokens += int(fact.usage.get("total", 0))
            case Spent():
                self.micro_usd += fact.micro_usd
