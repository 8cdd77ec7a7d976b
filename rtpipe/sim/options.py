"""How a simulated model behaves."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class SimOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The choices of whoever runs the simulated model.

    `pace`: 1.0 speaks in real time, n speaks n times faster, 0 never waits.
    `seed`: with one, every id is the same in every run; without, ids are unique.
    `api_keys`: when set, a handshake with another bearer key, or none, is answered with HTTP 401.
    `refuse`: (status, headers): every handshake is answered with that HTTP status.
    `hang`: connections are accepted and read, and never answered.
    """

    pace: float = 1.0
    seed: int | None = None
    api_keys: frozenset[str] | None = None
    refuse: tuple[int, Mapping[str, str]] | None = None
    hang: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.pace < float("inf"):
            raise ValueError(f"pace: {self.pace}: must be 0 (no waiting) or a positive factor")
