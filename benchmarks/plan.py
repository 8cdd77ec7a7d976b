"""What is measured, for how long, and what is aimed at."""

from dataclasses import dataclass

RATE = 20.0
"""Events a second of one paced session."""


@dataclass(frozen=True, slots=True)
class Case:
    """One number of the table."""

    name: str
    title: str
    way: str
    sessions: int
    paced: bool = False


CASES = (
    Case("down", "burst down", "down", 4),
    Case("up", "burst up", "up", 4),
    Case("paced-50", "paced, 50", "down", 50, paced=True),
    Case("paced-400", "paced, 400", "down", 400, paced=True),
)
QUICK_CASES = (*CASES[:2], Case("paced-20", "paced, 20", "down", 20, paced=True))


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    cases: tuple[Case, ...] = CASES
    rounds: int = 5
    burst_s: float = 2.0
    paced_s: float = 5.0
    warm_up_s: float = 0.5
    idle_sessions: int = 300


QUICK = Plan(QUICK_CASES, rounds=1, burst_s=0.5, paced_s=1.0, warm_up_s=0.1, idle_sessions=20)


@dataclass(frozen=True, slots=True)
class Goal:
    """rtpipe's CPU time per event over another relay's must not exceed *at_most*."""

    sentence: str
    other: str
    cases: tuple[str, ...]
    at_most: float


GOALS = (
    Goal("at least 10x LiteLLM's events per core-second in bursts", "litellm", ("down", "up"), 0.1),
    Goal("at most 0.6x LiteLLM's CPU per event, paced", "litellm", ("paced-50", "paced-400"), 0.6),
    Goal("nginx is not ahead in bursts", "nginx", ("down", "up"), 1.0),
    Goal("nginx takes at most 2.2x less CPU per event, paced", "nginx", ("paced-50", "paced-400"), 2.2),
)
