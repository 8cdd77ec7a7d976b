"""Releasing says whether anything was held."""

import trio

from rtpipe import Hold, Plugin, on_client, on_server
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
