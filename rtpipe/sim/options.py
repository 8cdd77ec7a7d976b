"""How a simulated model behaves."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .faults import parse
from .scenario import Scenario

SESSION_SECONDS = 60 * 60


class SimOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The choices of whoever runs the simulated model.

    `pace`: 1.0 speaks in real time, n speaks n times faster, 0 never waits.
    `seed`: with one, every id is the same in every run; without, ids are unique.
    `api_keys`: when set, a handshake with another key, or none, is refused.
    `models`: when set, a session of another model is refused.
    `session_seconds`: how long a session may last.
    `azure`: deviate from OpenAI where Azure is known to.
    `faults`: ordered for every session or handshake, in the words of `rtpipe sim --help`.
    `scenario`: what the model does, where it is written down.
    `log`: is given a line of JSON for each event of each session.
    `requests_per_minute`, `tokens_per_minute`: limits of each session; a response beyond one ends with status
    failed. None: no limit.
    `legacy_events`: also sends conversation.created and conversation.item.created, which the reference still
    lists, and which GA sessions have not been seen to send.
    """

    pace: float = 1.0
    seed: int | None = None
    api_keys: frozenset[str] | None = None
    models: frozenset[str] | None = None
    session_seconds: float = SESSION_SECONDS
    azure: bool = False
    faults: tuple[str, ...] = ()
    scenario: Scenario | None = None
    log: Callable[[str], None] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    legacy_events: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.pace < float("inf"):
            raise ValueError(f"pace: {self.pace}: must be 0 (no waiting) or a positive factor")
        if not 0 < self.session_seconds <= SESSION_SECONDS * 24:
            raise ValueError(f"session_seconds: {self.session_seconds}: must be more than 0, at most a day")
        for words in self.faults:
            parse(words)
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"{name}: {limit}: must be 1 or more")
