"""Signs of failure become alerts, once in a window, and not of a few calls."""

from pathlib import Path

import pytest

from rtpipe.api import facts
from rtpipe.api.store import StoreError
from rtpipe.daemon.config_observe import Signs as Config
from rtpipe.daemon.signs import Signs


class Scene:
    def __init__(self, **config):
        self.config = Config(**{"window_s": 100, "min_sample": 10, **config})
        self.now = 0.0
        self.alerts = []
        self.signs = Signs(lambda: self.config, lambda: self.now, self.alerts.append)

    @property
    def names(self):
        return [alert.name for alert in self.alerts]

    def opened(self, session="s"):
        self.signs.fact(
            facts.SessionOpened(session=session, principal="p", model="m", listener="l", upstream="u")
        )

    def closed(self, session="s", cause="client"):
        self.signs.fact(
            facts.SessionClosed(
                session=session, principal="p", code=1000, reason="", cause=cause, duration_s=1
            )
        )

    def called(self, session="s", status="ok", name="f", digest="d"):
        call = facts.ToolCalled(
            session=session, name=name, call_id="c", stage="t", duration_s=1, status=status, digest=digest
        )
        self.signs.fact(call)

    def spent(self, usd):
        self.signs.fact(facts.Spent(principal="p", model="m", micro_usd=int(usd * 1e6), usage={}))

    def replaced(self):
        for change in ("lost", "replaced"):
            self.signs.fact(facts.LegChanged(leg="upstream", change=change, cause=""))


def test_tool_errors_are_a_share_of_enough_calls():
    scene = Scene()
    for i in range(9):
        scene.called(session=f"s{i}", status="error")
    assert scene.names == []
    scene.called(session="s9")
    assert scene.names == ["tool_errors"]
    assert scene.alerts[0].message == "90% of tool calls failed (9 of 10) within 100 s"
    for i in range(20):
        scene.called(session=f"t{i}", status="error")
    assert scene.names == ["tool_errors"]
    scene.now = 100
    for i in range(10):
        scene.called(session=f"u{i}", status="timeout")
    assert scene.names == ["tool_errors"] * 2


def test_ten_percent_is_not_more_than_ten_percent():
    scene = Scene()
    for i in range(9):
        scene.called(session=f"s{i}")
    scene.called(session="x", status="error")
    assert scene.names == []
    # What became of a call that had timed out is no other call.
    scene.called(session="x", status="late-dropped")
    assert scene.names == []


def test_repeated_calls():
    scene = Scene(repeated_calls=3)
    for i in range(2):
        scene.called()
        scene.called(session="other")
        scene.called(digest=f"other {i}")  # a tool that is used much is no sign
    assert scene.names == []
    scene.called()
    assert scene.names == ["repeated_calls"]
    assert scene.alerts[0].labels == {"tool": "f", "session": "s"}


@pytest.mark.parametrize(("sessions", "names"), [(10, ["cost_spike"]), (30, [])])
def test_cost_without_more_sessions(sessions, names):
    scene = Scene(cost_factor=3, cost_usd=1)
    for _ in range(10):
        scene.opened()
    scene.spent(2)
    scene.now = 100
    for _ in range(sessions):
        scene.opened()
    scene.spent(6)
    assert scene.names == []
    scene.spent(0.1)
    assert scene.names == names


def test_little_money_is_no_spike():
    scene = Scene(cost_usd=1)
    scene.spent(0.01)
    scene.now = 100
    scene.spent(0.9)
    assert scene.names == []


def test_reconnects():
    scene = Scene(reconnect_rate=0.5)
    for _ in range(30):
        scene.opened()
    for _ in range(15):
        scene.replaced()
    assert scene.names == []
    scene.replaced()
    assert scene.names == ["reconnects"]


def test_callers_who_leave_after_a_tool():
    scene = Scene(left_after_tool_s=10, left_after_tool_rate=0.3)
    for i in range(10):
        scene.called(session=f"s{i}")
    scene.now = 5
    for i in range(3):
        scene.closed(session=f"s{i}")
    scene.closed(session="s3", cause="upstream")
    scene.now = 20
    for i in range(4, 10):
        scene.closed(session=f"s{i}")
    assert scene.names == []
    for i in range(2):
        scene.called(session=f"t{i}")
        scene.closed(session=f"t{i}")
    assert scene.names == ["left_after_tool"]
    assert not scene.signs._last_call_s


def test_a_disk_that_fails():
    scene = Scene()
    full = StoreError(Path("/var/lib/x"), "database or disk is full (SQLITE_FULL)", "free space on that disk")
    for now in (0, 1, 101):
        scene.now = now
        scene.signs.store_failed(full)
    assert scene.names == ["store_failed"] * 2
    assert (scene.alerts[0].stage, scene.alerts[0].message) == ("host", str(full))
