"""The short form of ``python -m tests.faults.herd``."""

from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY
from tests.faults.herd import herd

SESSIONS = 20


async def test_all_that_lost_the_model_at_once_are_answered_again(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)
    seen = await herd(SESSIONS)
    assert len(seen.dials) == SESSIONS
    first, second, third = seen.lines()
    assert first == "20 sessions lost the model at once; 20 dials brought all back"
    assert sum(map(int, second.partition(": ")[2].split())) == SESSIONS
    assert "kB more a session" in third
