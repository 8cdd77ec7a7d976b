"""Meters: plain counters of what crosses the upstream edge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rtpipe.protocol import events
from rtpipe.protocol.catalogue import DOWNSTREAM, Direction, Server


@dataclass(slots=True)
class Count:
    """Frames and payload bytes of one (direction, type); times are monotonic seconds."""

    frames: int = 0
    bytes: int = 0
    first_s: float = 0.0
    last_s: float = 0.0


_TYPES = 256
"""How many types are told apart; clients may make up as many as they like. The rest count as ""."""


class Meter:
    """A session's counters, its tripwires, and how much answer audio is still to be heard."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: dict[tuple[str, str], Count] = {}
        self._tripwires: dict[str, list[tuple[int, Callable[[], None]]]] = {}
        self._played_out_s = 0.0
        self.spoken_s = 0.0
        """Seconds of answer audio that came, in all."""
        self._last_delta = (0, 0)
        self.audio_bytes_per_second = 48_000

    def count(self, direction: str, kind: str) -> Count:
        """The counters of one event type; zeros for what never came."""
        return self._counts.get((direction, kind)) or Count()

    def total(self, direction: str) -> tuple[int, int]:
        """Frames and payload bytes of one direction, of whatever type."""
        counts = [count for (way, _), count in self._counts.items() if way == direction]
        return sum(count.frames for count in counts), sum(count.bytes for count in counts)

    @property
    def counts(self) -> Mapping[tuple[str, str], Count]:
        """All counters, by direction and event type."""
        return self._counts

    def at(self, kind: str, payload_bytes: int, callback: Callable[[], None]) -> None:
        """Call *callback* once, when this many payload bytes of server events *kind* have passed in all."""
        if not isinstance(payload_bytes, int) or not callable(callback):
            raise TypeError("at(kind, payload_bytes, callback)")
        wires = self._tripwires.setdefault(kind, [])
        wires.append((payload_bytes, callback))
        wires.sort(key=lambda wire: wire[0])

    @property
    def playout_ahead_s(self) -> float:
        """Seconds of answer audio received but not yet played, if played since it came."""
        return max(0.0, self._played_out_s - self._now())

    def stop_playout(self) -> None:
        """The caller interrupted: nothing of what came is still to be heard."""
        self._played_out_s = 0.0

    def passed(self, direction: Direction, kind: str, payload: bytes, now: float | None = None) -> None:
        """Count one frame that came at *now* (monotonic seconds). Called for every frame there is."""
        if now is None:
            now = self._now()
        count = self._counts.get((direction, kind))
        if count is None:
            if len(self._counts) >= _TYPES:
                kind = ""
            count = self._counts.setdefault((direction, kind), Count(first_s=now))
        count.frames += 1
        count.bytes += len(payload)
        count.last_s = now
        if direction == DOWNSTREAM:
            if kind == Server.AUDIO_DELTA:
                self._heard(payload, now)
            if kind in self._tripwires:
                self._trip(kind, count.bytes)

    def _heard(self, payload: bytes, now: float) -> None:
        # Deltas of one response differ in nothing that has a length but their audio.
        if len(payload) != self._last_delta[0]:
            self._last_delta = (len(payload), events.audio_delta_bytes(payload))
        seconds = self._last_delta[1] / self.audio_bytes_per_second
        self._played_out_s = max(now, self._played_out_s) + seconds
        self.spoken_s += seconds

    def _trip(self, kind: str, total: int) -> None:
        wires = self._tripwires[kind]
        while wires and wires[0][0] <= total:
            wires.pop(0)[1]()
        if not wires:
            del self._tripwires[kind]
