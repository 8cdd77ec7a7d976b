"""What the gateway counts, as a plugin that sends it elsewhere sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Distribution:
    """*counts* of values up to each of *bounds*, and above the one before; the last is of those above all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it stands. *values* are by the values of its *labels*: numbers, or distributions where
    *kind* is histogram. Counters and distributions only grow, from the start of the process on."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float | Distribution]
