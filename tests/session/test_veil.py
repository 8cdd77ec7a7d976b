"""What the client does not get to see, and what every stage still does."""

import pytest

from rtpipe import Event, Hold, Plugin, QueueFull, on_client, on_server
from rtpipe.testing import ChainHarness


class Sees(Plugin[None, list]):
    @on_server()
    def server(self, session, event):
        session.state.append(event.type)


def call_item(item_id, call_id="c1"):
    return {"id": item_id, "type": "function_call", "call_id": call_id, "name": "f"}


def answer(response_id, *items, metadata=None):
    """The events of a response that consists of these items."""
    base = {"id": response_id, "metadata": metadata}
    yield {"type": "response.created", "response": {**base, "output": []}}
    for item in items:
        of = {"response_id": response_id, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "response_id": response_id, "item": item}
        yield {"type": "conversation.item.added", "previous_item_id": "before", "item": item}
        yield {"type": "response.function_call_arguments.delta", **of, "delta": "{"}
        yield {"type": "response.output_audio.delta", **of, "delta": "AAAA"}
        yield {
            "type": "response.function_call_arguments.done",
            **of,
            "call_id": item["call_id"],
            "arguments": "{}",
        }
        yield {"type": "conversation.item.done", "previous_item_id": "before", "item": item}
        yield {"type": "response.output_item.done", "response_id": response_id, "item": item}
    yield {"type": "response.done", "response": {**base, "output": list(items)}}


async def say(chain, events):
    for number, event in enumerate(events):
        await chain.upstream.send({"event_id": f"s{number}", **event})


async def test_everything_about_a_hidden_item_disappears_for_the_client_alone():
    async with ChainHarness({"sees": Sees}) as chain:
        view = chain.session.view("sees")
        view.hide("item_1")
        await say(chain, answer("r1", call_item("item_1"), call_item("item_10", "c2")))
        shown = chain.client.take()
        assert not [e for e in shown if "item_1" in (e.get("item_id"), e.get("item", {}).get("id"))]
        assert len([e for e in shown if "item_10" in (e.get("item_id"), e.get("item", {}).get("id"))]) == 7
        assert shown[-1]["response"]["output"] == [call_item("item_10", "c2")]
        assert len(chain.state("sees")) == 16
        chain.check_fates()


async def test_what_comes_after_hidden_items_is_linked_to_what_is_visible():
    async with ChainHarness({"sees": Sees}) as chain:
        for item, previous in (("a", None), ("h1", "a"), ("h2", "h1"), ("b", "h2"), ("c", "b")):
            if item.startswith("h"):
                chain.session.view("sees").hide(item)
            await chain.upstream.send(
                {"type": "conversation.item.added", "previous_item_id": previous, "item": {"id": item}}
            )
        assert [(e["item"]["id"], e["previous_item_id"]) for e in chain.client.take()] == [
            ("a", None),
            ("b", "a"),
            ("c", "b"),
        ]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.item.retrieve", "item_id": "h"},
        {"type": "conversation.item.delete", "item_id": "h"},
        {"type": "conversation.item.truncate", "item_id": "h"},
        {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c1"}},
        {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "h"}]}},
    ],
)
async def test_the_client_cannot_speak_of_hidden_items(event):
    async with ChainHarness({"sees": Sees}) as chain:
        chain.session.view("sees").hide("h")
        await say(chain, answer("r", call_item("h")))
        chain.client.take()
        await chain.client.send({**event, "event_id": "mine"})
        (error,) = chain.client.take()
        assert (error["type"], error["error"]["event_id"]) == ("error", "mine")
        assert chain.upstream.payloads == []


class HoldsDeltas(Plugin[None, None]):
    @on_server("response.output_audio.delta")
    def hold(self, session, event):
        return Hold("deltas")


async def test_deltas_that_were_held_until_their_item_was_done_stay_hidden():
    async with ChainHarness({"holds": HoldsDeltas}) as chain:
        view = chain.session.view("holds")
        view.hide("h")
        await say(chain, answer("r", call_item("h")))
        for _ in range(3):
            view.release("deltas")
            await chain.settle()
        assert not any(b'"h"' in payload for payload in chain.client.payloads)


async def test_hiding_nonsense_is_the_plugins_mistake_alone():
    async with ChainHarness({"sees": Sees}) as chain:
        for nonsense in (None, 7, "", []):
            with pytest.raises(TypeError):
                chain.session.view("sees").hide(nonsense)
        await chain.upstream.send({"type": "response.created", "response": {"id": "r"}})
        assert chain.client.take_types() == ["response.created"]


async def test_items_and_deletes_of_plugins():
    async with ChainHarness({"sees": Sees}) as chain:
        view = chain.session.view("sees")
        item = {"type": "message", "role": "user", "content": []}
        view.send_upstream(Event({"type": "conversation.item.create", "item": item}))
        view.send_upstream(Event({"type": "conversation.item.delete", "item_id": "old"}))
        await chain.settle()
        create, delete = chain.upstream.take()
        made = create["item"]
        await chain.upstream.send(
            {"type": "conversation.item.added", "previous_item_id": "old", "item": made}
        )
        await chain.upstream.send({"type": "conversation.item.deleted", "item_id": "old"})
        assert chain.client.payloads == []
        assert chain.state("sees") == ["conversation.item.added", "conversation.item.deleted"]
        await chain.upstream.send({"type": "conversation.item.deleted", "item_id": "old"})
        assert chain.client.take_types() == ["conversation.item.deleted"]  # that one was not ours
        assert delete["event_id"] != create["event_id"]


async def test_an_echo_that_will_never_come_hides_nothing_of_the_clients():
    async with ChainHarness({"sees": Sees}) as chain:
        chain.session.view("sees").send_upstream(Event({"type": "conversation.item.delete", "item_id": "i"}))
        await chain.settle()
        (sent,) = chain.upstream.take()
        await chain.upstream.send(
            {"type": "error", "event_id": "e", "error": {"code": "x", "event_id": sent["event_id"]}}
        )
        assert chain.client.payloads == []
        assert chain.state("sees") == ["error"]
        await chain.upstream.send({"type": "conversation.item.deleted", "item_id": "i"})
        assert chain.client.take_types() == ["conversation.item.deleted"]


@pytest.mark.parametrize("audible", [True, False])
async def test_responses_that_plugins_ask_for(audible):
    async with ChainHarness({"sees": Sees}) as chain:
        view = chain.session.view("sees")
        create = Event({"type": "response.create", "response": {"metadata": {"k": "v"}}})
        view.send_upstream(create, audible=audible)
        await chain.settle()
        (sent,) = chain.upstream.take()
        await say(chain, answer("r1", call_item("i1"), metadata=sent["response"]["metadata"]))
        shown = chain.client.take()
        if audible:
            assert len(shown) == 9
            assert shown[0]["response"]["metadata"] == shown[-1]["response"]["metadata"] == {"k": "v"}
        else:
            assert shown == []
        assert len(chain.state("sees")) == 9
        await say(chain, answer("r2", call_item("i2")))
        assert len(chain.client.take()) == 9  # the client's own


async def test_the_clients_own_metadata_stay_even_under_our_key():
    async with ChainHarness({"sees": Sees}) as chain:
        chain.session.view("sees").hide("h")
        await say(chain, answer("r", call_item("i"), metadata={"rtpipe": "mine"}))
        assert chain.client.take()[-1]["response"]["metadata"] == {"rtpipe": "mine"}


async def test_ids_that_look_like_ours_prove_nothing():
    async with ChainHarness({"sees": Sees}) as chain:
        await chain.client.send(b"nonsense")
        own = chain.client.take()[0]["event_id"]
        for name in (own + "x", own[:-1], "rtp_"):
            await chain.upstream.send(
                {"type": "error", "event_id": "e", "error": {"code": "x", "event_id": name}}
            )
        assert chain.session.ending is None


class Injects(Plugin[None, None]):
    @on_client("x")
    def take(self, session, event):
        try:
            while True:
                session.send_downstream(Event({"type": "y"}))
        except QueueFull:
            return


async def test_a_full_queue_is_the_plugins_to_handle():
    async with ChainHarness({"a": Injects}) as chain:
        await chain.client.send({"type": "x"})
        assert len(chain.client.take()) == 1000
        chain.check_fates()
