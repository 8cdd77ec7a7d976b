"""Who meets an event, from where, and when."""

import pytest
import trio

from rtpipe import Drop, Event, Plugin, QueueFull, on_client, on_server
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness

met = []


@pytest.fixture(autouse=True)
def _forget():
    met.clear()


class Notes(Plugin[None, None]):
    """Notes what it meets; pauses on some."""

    @on_client()
    async def client(self, session, event):
        met.append((self.stage, event.type, event.origin))
        if event.type.startswith("slow"):
            await trio.sleep(0.1)
            met.append((self.stage, "after " + event.type, event.origin))

    @on_server()
    async def server(self, session, event):
        met.append((self.stage, event.type, event.origin))
        if event.type.startswith("slow"):
            await trio.sleep(0.1)
            met.append((self.stage, "after " + event.type, event.origin))


def stages():
    """Which stages met something, in order."""
    return "".join(stage for stage, _, _ in met)


async def test_the_onion():
    async with ChainHarness({"a": Notes, "b": Notes, "c": Notes}) as chain:
        await chain.client.send({"type": "x"})
        await chain.upstream.send({"type": "y"})
    assert met == [
        *((stage, "x", "client") for stage in "abc"),
        *((stage, "y", "upstream") for stage in "cba"),
    ]


async def test_where_an_injected_event_starts():
    async with ChainHarness({"a": Notes, "b": Notes, "c": Notes}) as chain:
        view = chain.session.view("b")
        for send, whole_chain, expected in (
            (view.send_upstream, False, "c"),
            (view.send_upstream, True, "ac"),
            (view.send_downstream, False, "a"),
            (view.send_downstream, True, "ca"),
        ):
            met.clear()
            event_id = send(Event({"type": "x", "event_id": "mine"}), whole_chain=whole_chain)
            await chain.settle()
            assert stages() == expected
            assert {origin for _, _, origin in met} == {"b"}
            if send == view.send_upstream:
                assert event_id.startswith("rtp_")  # the plugin's own is not kept
                assert chain.upstream.take() == [{"type": "x", "event_id": event_id}]
            else:
                assert event_id == "mine"
                assert chain.client.take() == [{"type": "x", "event_id": "mine"}]
        chain.check_fates()


class Resends(Plugin[None, None]):
    """Sends the event in hand, which must not change what it is."""

    @on_client("x")
    def take(self, session, event):
        session.send_upstream(event, audible=True)
        assert event.origin == "client"
        assert not event.audible


async def test_sending_the_event_in_hand():
    async with ChainHarness({"r": Resends, "n": Notes}) as chain:
        await chain.client.send({"type": "x", "event_id": "e"})
        first, second = chain.upstream.take()
        assert first == {"type": "x", "event_id": "e"}
        assert second["event_id"].startswith("rtp_")
    assert met == [("n", "x", "client"), ("n", "x", "r")]


CONSTANT = Event({"type": "constant", "n": [1]})


class Constant(Plugin[None, None]):
    @on_client("x")
    def client(self, session, event):
        return CONSTANT

    @on_server("y")
    def server(self, session, event):
        return [CONSTANT, event]


class Scribbles(Plugin[None, None]):
    @on_client("constant")
    def client(self, session, event):
        assert event.data["n"] == [1]
        event.data["n"].append(2)


async def test_an_event_kept_by_a_plugin_stays_as_it_is():
    async with ChainHarness({"c": Constant, "s": Scribbles, "n": Notes}) as chain:
        for _ in range(2):
            await chain.client.send({"type": "x"})
        await chain.upstream.send({"type": "y"})
        assert not chain.guard.failures
        assert chain.client.take_types() == ["constant", "y"]
    assert CONSTANT.origin == ""
    assert [origin for _, kind, origin in met if kind == "constant"] == ["client", "client"]


async def test_walks_of_one_direction_never_overlap_and_directions_meet_only_at_awaits(autojump_clock):
    async with ChainHarness({"a": Notes}) as chain:
        for number in range(2):
            await chain.client.connection.send(b'{"type":"slow up %d"}' % number)
            await chain.upstream.connection.send(b'{"type":"slow down %d"}' % number)
        chain.session.view("a").send_upstream(Event({"type": "never met by its maker"}))
        await trio.sleep(1)
        for word in ("up", "down"):
            mine = [kind for _, kind, _ in met if word in kind]
            assert mine == [
                f"slow {word} 0",
                f"after slow {word} 0",
                f"slow {word} 1",
                f"after slow {word} 1",
            ]
        assert {kind for _, kind, _ in met[:2]} == {"slow up 0", "slow down 0"}


async def test_an_injected_event_walks_after_the_walk_in_hand_and_before_the_next(autojump_clock):
    async with ChainHarness({"a": Notes, "b": Notes}) as chain:
        await chain.client.connection.send(b'{"type":"slow 1"}')
        await chain.client.connection.send(b'{"type":"2"}')
        await trio.sleep(0.05)
        chain.session.view("a").send_upstream(Event({"type": "injected"}))
        assert chain.upstream.payloads == []
        await trio.sleep(1)
        assert chain.upstream.take_types() == ["slow 1", "injected", "2"]
        chain.session.view("a").send_upstream(Event({"type": "idle"}))
        await chain.settle()
        assert chain.upstream.take_types() == ["idle"]
        chain.check_fates()


async def test_injection_is_bounded_and_refused_without_a_trace(autojump_clock):
    async with ChainHarness({"a": Notes, "b": Notes}, limits=SessionLimits(inject_events=3)) as chain:
        await chain.client.connection.send(b'{"type":"slow"}')
        await trio.sleep(0.05)
        view = chain.session.view("a")
        for _ in range(3):
            view.send_upstream(Event({"type": "x"}))
        item = Event({"type": "conversation.item.create", "item": {"id": "own"}})
        with pytest.raises(QueueFull):
            view.send_upstream(item)
        assert "own" not in chain.session.veil.hidden_items
        await trio.sleep(1)
        assert len(chain.upstream.take()) == 4
        view.send_upstream(item)
        await chain.settle()
        chain.check_fates()


async def test_stages_do_not_send_updates_of_their_own():
    async with ChainHarness({"a": Notes}) as chain:
        with pytest.raises(ValueError, match="configure"):
            chain.session.view("a").send_upstream(Event({"type": "session.update", "session": {}}))


class PingPong(Plugin[None, None]):
    """Two of these answer each other for ever."""

    @on_client("x")
    def take(self, session, event):
        session.send_upstream(Event({"type": "x"}), whole_chain=True)
        return event.replace({"type": "gone"})


class Sink(Plugin[None, None]):
    @on_client("gone")
    def take(self, session, event):
        return Drop("", ours=True)


async def test_stages_that_answer_each_other_do_not_stop_the_world():
    async with ChainHarness({"a": PingPong, "b": PingPong, "sink": Sink}) as chain:
        await chain.client.connection.send(b'{"type":"x"}')
        for _ in range(100):
            await trio.lowlevel.checkpoint()


class SendsAtOpen(Plugin[None, None]):
    async def session_open(self, session):
        session.send_upstream(Event({"type": "up"}))
        session.send_downstream(Event({"type": "down"}))
        await trio.sleep(1)


async def test_what_is_sent_while_opening_waits_until_all_are_open(autojump_clock):
    async with ChainHarness({"x": Notes, "a": SendsAtOpen, "b": Notes, "slow": SendsAtOpen}) as chain:
        await chain.settle()
        assert chain.upstream.take_types() == ["up", "up"]
        assert sorted(chain.client.take_types()) == ["down", "down"]
        chain.check_fates()
