"""Alerts on their way to a webhook: which are sent, how often, and what the log says of the others."""

import msgspec
import pytest
import trio

from rtpipe import Secret, facts
from rtpipe.daemon.alerts import WAITING, Alerts
from rtpipe.daemon.config_observe import Alerts as Config

URL = "http://127.0.0.1:{port}/hook-of-secret-path"


def alert(name="budget", **labels):
    return facts.Alerted(session="s1", stage="cost-governor", name=name, message="half of it", labels=labels)


class Posted(list):
    def __init__(self):
        super().__init__()
        self.more = trio.lowlevel.ParkingLot()

    def append(self, each):
        super().append(each)
        self.more.unpark_all()


@pytest.fixture
async def webhook(nursery, monkeypatch):
    """A server that answers with the statuses it is given, then 200; and what was posted to it."""
    statuses, posted = [], Posted()

    async def serve(stream):
        data = b""
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < length(data):
            data += await stream.receive_some()
        posted.append(msgspec.json.decode(data.partition(b"\r\n\r\n")[2]))
        status = statuses.pop(0) if statuses else 200
        await stream.send_all(
            f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )

    def length(data):
        return int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    monkeypatch.setenv("HOOK", URL.format(port=listener.socket.getsockname()[1]))
    return statuses, posted


@pytest.fixture
def alerts(nursery):
    made = Alerts(lambda: Config(webhook=Secret(env="HOOK"), period_s=100), lambda: made.time)
    made.time = 0.0
    nursery.start_soon(made.run)
    return made


async def until(posted, count):
    with trio.fail_after(30):
        while len(posted) < count:
            await posted.more.park()


async def test_an_alert_is_posted_once_in_a_period(webhook, alerts):
    _, posted = webhook
    for each in (alert(of="a"), alert(of="a"), alert(of="b"), alert("spike", of="a")):
        alerts.fact(each)
    alerts.fact(facts.LegChanged(leg="client", change="attached", cause=""))
    await until(posted, 3)
    alerts.time = 99.0
    alerts.fact(alert(of="a"))
    alerts.time = 101.0
    alerts.fact(alert(of="a"))
    await until(posted, 4)
    assert [(each["name"], each["labels"]["of"]) for each in posted] == [
        ("budget", "a"),
        ("budget", "b"),
        ("spike", "a"),
        ("budget", "a"),
    ]
    assert posted[0] == {
        "name": "budget",
        "stage": "cost-governor",
        "session": "s1",
        "message": "half of it",
        "labels": {"of": "a"},
    }


@pytest.mark.parametrize(("answers", "times"), [([503, 429], 3), ([500] * 9, 4), ([404], 1)])
async def test_what_fails_for_a_while_is_tried_again(webhook, alerts, monkeypatch, caplog, answers, times):
    caplog.set_level("INFO")
    statuses, posted = webhook
    monkeypatch.setattr("rtpipe.daemon.alerts.RETRY_AFTER_S", (0.0, 0.0, 0.0))
    statuses += answers
    alerts.fact(alert(of="a"))
    await until(posted, times)
    statuses.clear()
    alerts.fact(alert(of="b"))
    await until(posted, times + 1)
    assert posted[-1]["labels"] == {"of": "b"}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if times == 3 else 1)
    assert "secret-path" not in str(said)


async def test_nothing_waits_for_a_webhook(monkeypatch, caplog):
    monkeypatch.setenv("HOOK", "http://x")
    alerts = Alerts(lambda: Config(webhook=Secret(env="HOOK")), trio.current_time)
    for number in range(WAITING + 1):
        alerts.fact(alert(of=str(number)))
    assert [record.getMessage() for record in caplog.records] == [
        f"the alert budget was not sent: {WAITING} wait for the webhook"
    ]
