"""Releasing says whether anything was held."""

import pytest
import trio

from rtpipe import Event, Hold, Plugin, on_client, on_server
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness


class Holder(Plugin[None, None]):
    @on_client("response.create")
    def hold_create(self, session, event):
        return Hold("both")

    @on_server("response.done")
    def hold_done(self, session, event):
        return Hold("both")


async def test_release_says_whether_anything_was_held_in_either_direction():
    async with ChainHarness({"holder": Holder}) as chain:
        view = chain.session.view("holder")
        assert view.release("both") is False
        await chain.client.send({"type": "response.create"})
        await chain.upstream.send({"type": "response.done"})
        assert view.release("another") is False
        assert view.release("both") is True
        assert view.release("both") is False  # on its way already
        await chain.settle()
        assert chain.upstream.take_types() == ["response.create"]
        assert chain.client.take_types() == ["response.done"]
        assert view.release("both") is False


async def test_what_was_given_up_is_no_longer_held(autojump_clock):
    async with ChainHarness({"holder": Holder}) as chain:
        await chain.client.send({"type": "response.create"})
        await trio.sleep(40)
        assert chain.session.view("holder").release("both") is False
        assert chain.client.take_types() == ["error"]


async def test_another_event_goes_on_in_place_of_the_held_one_and_keeps_its_place():
    async with ChainHarness({"holder": Holder}) as chain:
        view = chain.session.view("holder")
        await chain.client.send({"type": "response.create", "event_id": "a"})
        await chain.client.send({"type": "session.update", "event_id": "b", "session": {}})
        assert (
            view.release("both", Event({"type": "response.create", "event_id": "a", "response": {}})) is True
        )
        await chain.settle()
        sent = chain.upstream.take()
        assert [event["event_id"] for event in sent] == ["a", "b"]
        assert "response" in sent[0]
        chain.check_fates()


async def test_what_replaces_a_held_event_is_charged_in_its_place():
    async with ChainHarness({"holder": Holder}, limits=SessionLimits(hold_bytes=10_000)) as chain:
        view = chain.session.view("holder")
        update = {"type": "session.update", "event_id": "u", "session": {}}
        await chain.client.send({"type": "response.create", "response": {"instructions": "x" * 9_000}})
        await chain.client.send(update)
        assert chain.client.take_types() == ["error"]  # the queue is full
        view.release("both", Event({"type": "response.create"}))
        await chain.settle()
        await chain.client.send({"type": "response.create"})
        for _ in range(5):
            await chain.client.send(update)
        assert chain.client.take() == []
        chain.check_fates()


async def test_a_held_event_cannot_go_on_as_one_of_another_type():
    async with ChainHarness({"holder": Holder}) as chain:
        await chain.client.send({"type": "response.create"})
        with pytest.raises(ValueError, match="cannot go on as"):
            chain.session.view("holder").release("both", Event({"type": "response.cancel"}))


async def test_a_held_event_is_dropped_with_a_code():
    async with ChainHarness({"holder": Holder}) as chain:
        await chain.client.send({"type": "response.create", "event_id": "mine"})
        chain.session.view("holder").drop_held("both", "Because.", code="no_reason")
        await chain.settle()
        (answer,) = chain.client.take()
        assert (answer["error"]["code"], answer["error"]["message"]) == ("no_reason", "Because.")
        assert answer["error"]["event_id"] == "mine"
