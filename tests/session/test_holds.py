"""Holding: what waits, what passes, how long and how much."""

import pytest
import trio

from rtpipe import Event, Hold, Plugin, facts, on_client, on_server
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM
from rtpipe.session.holds import HoldQueue
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness, play


class Holds(Plugin[None, None]):
    @on_client("response.create", "input_audio_buffer.append")
    def up(self, session, event):
        key = event.data.get("hold")
        return Hold(key) if key else None

    @on_server("response.done")
    def down(self, session, event):
        key = event.data.get("hold")
        return Hold(key) if key else None


async def test_what_passes_a_held_create_and_what_waits():
    async with ChainHarness({"h": Holds}) as chain:
        await play(
            """
            client   -> response.create {"hold": "k", "n": 1}
            client   -> response.cancel
            client   -> input_audio_buffer.append
            client   -> conversation.item.create
            client   -> input_audio_buffer.commit
            client   -> input_audio_buffer.append {"n": 2}
            upstream <- response.cancel
            upstream <- input_audio_buffer.append
            upstream <- nothing
            """,
            chain,
        )
        chain.session.view("h").release("k")
        await chain.settle()
        assert chain.upstream.take_types() == [
            "response.create",
            "conversation.item.create",
            "input_audio_buffer.commit",
            "input_audio_buffer.append",
        ]
        chain.check_fates()


async def test_a_held_done_is_not_passed_by_the_next_created():
    async with ChainHarness({"h": Holds}) as chain:
        await chain.upstream.send({"type": "response.done", "hold": "k"})
        await chain.upstream.send({"type": "response.created"})
        await chain.upstream.send({"type": "error"})
        assert chain.client.take_types() == ["error"]
        chain.session.view("h").release("k")
        await chain.settle()
        assert chain.client.take_types() == ["response.done", "response.created"]


async def test_age_is_bounded_and_the_client_is_told(autojump_clock):
    async with ChainHarness({"h": Holds}, limits=SessionLimits(hold_age_s=10)) as chain:
        await chain.client.send({"type": "response.create", "hold": "k", "event_id": "mine"})
        await chain.client.send({"type": "conversation.item.create", "event_id": "behind"})
        await trio.sleep(9)
        assert chain.client.payloads == []
        await trio.sleep(3)
        (error,) = chain.client.take()
        assert error["type"] == "error"
        assert error["error"]["event_id"] == "mine"
        assert {"type", "code", "message", "param", "event_id"} == set(error["error"])
        assert [e["event_id"] for e in chain.upstream.take()] == ["behind"]
        (waited,) = (f for f in chain.facts if isinstance(f, facts.Waited))
        assert (waited.stage, waited.type, waited.outcome) == ("h", "response.create", "expired")
        assert 10 <= waited.duration_s <= 11
        chain.check_fates()


async def test_too_much_of_the_upstreams_ends_the_session():
    async with ChainHarness({"h": Holds}, limits=SessionLimits(hold_bytes=5000)) as chain:
        for _ in range(5):
            await chain.upstream.send({"type": "response.done", "hold": "k"})
        assert chain.client.closing.code == 1011


async def test_a_single_event_of_any_size_can_be_held_and_nothing_beside_it():
    async with ChainHarness({"h": Holds}, limits=SessionLimits(hold_bytes=5000)) as chain:
        await chain.client.send({"type": "response.create", "hold": "k", "x": "x" * 5000})
        assert chain.client.take_types() == []
        await chain.client.send({"type": "response.create", "event_id": "behind"})
        (error,) = chain.client.take()
        assert error["error"]["event_id"] == "behind"
        chain.session.view("h").release("k")
        await chain.settle()
        assert chain.upstream.take_types() == ["response.create"]
        assert not chain.session.lane(UPSTREAM).holding


@pytest.mark.parametrize(("ours", "told"), [(False, ["error"]), (True, [])])
async def test_dropping_what_is_held(ours, told):
    async with ChainHarness({"h": Holds}) as chain:
        await chain.client.send({"type": "response.create", "hold": "k", "event_id": "mine"})
        await chain.client.send({"type": "response.create", "event_id": "behind"})
        chain.session.view("h").drop_held("k", "not today", ours=ours)
        await chain.settle()
        assert chain.client.take_types() == told
        assert [e["event_id"] for e in chain.upstream.take()] == ["behind"]
        outcomes = [f.outcome for f in chain.facts if isinstance(f, facts.Waited)]
        assert outcomes == ["dropped"]
        chain.check_fates()


async def test_what_still_waits_at_the_end_is_lost_and_counted():
    async with ChainHarness({"h": Holds}) as chain:
        await chain.client.send({"type": "response.create", "hold": "k"})
        lane = chain.session.lane(UPSTREAM)
    assert lane.tally.fates == {"lost": 1}


def event(kind, name):
    return Event({"type": kind, "name": name})


def names(queue):
    taken = []
    while (entry := queue.take()) is not None:
        taken.append(entry.event.data["name"])
        queue.walked()
    return taken


def test_one_that_is_held_again_keeps_its_place():
    queue = HoldQueue(UPSTREAM, 100_000)
    for name in "abc":
        queue.add(event("response.create", name), "k" if name == "a" else None, 0)
    queue.release("k")
    assert queue.take().event.data["name"] == "a"
    queue.walked()
    again = queue.take()
    assert again.event.data["name"] == "b"
    queue.add(again.event, "l", 1)
    queue.walked()
    assert queue.take() is None
    queue.release("l")
    assert names(queue) == ["b", "c"]
    assert not queue.blocks(event("response.create", "d"))


def test_it_keeps_its_place_though_something_before_it_was_dropped_meanwhile():
    queue = HoldQueue(UPSTREAM, 100_000)
    queue.add(event("input_audio_buffer.append", "held"), "other", 0)
    queue.add(event("response.create", "first"), "k", 0)
    queue.add(event("response.create", "b"), None, 0)
    queue.add(event("response.create", "c"), None, 0)
    queue.release("k")
    assert queue.take().event.data["name"] == "first"
    queue.walked()
    again = queue.take()
    queue.drop("other")
    queue.add(again.event, "l", 1)
    queue.walked()
    queue.release("l")
    assert names(queue) == ["b", "c"]


def test_many_small_events_are_bounded_too():
    queue = HoldQueue(DOWNSTREAM, 4 * 1024 * 1024)
    count = 0
    while queue.add(event("x", ""), "k", 0):
        count += 1
    assert count < 5000
    queue.clear()
    assert queue.add(event("x", ""), "k", 0)
