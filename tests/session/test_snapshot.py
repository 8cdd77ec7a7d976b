"""A session that one process leaves and another one restores."""

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import Event, Hold, Plugin, Principal, Session, facts, on_client
from rtpipe.protocol import items
from rtpipe.session import snapshot
from rtpipe.session.snapshot import Snapshot
from rtpipe.session.view import KEPT_BYTES
from rtpipe.testing import ChainHarness
from tests.session.cuts import CONFIG, PNG, Caller, Upstreams, log_of, losses

IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}


class Talker(Caller):
    """Says what it is told to say, and waits until the model has nothing more to say."""

    async def do(self, step: str, number: int) -> None:
        match step:
            case "say":
                await self.text(f"u{number}", f"words {number}")
            case "show":
                await self.text(f"u{number}", "look", IMAGE)
            case "call":
                await self.text(f"u{number}", "call dice")
            case "configure":
                await self.say("session.update", session={**CONFIG, "instructions": f"Be {number}."})
            case "note":  # and asks for no answer
                content = [{"type": "input_text", "text": f"note {number}"}]
                item = {"id": f"n{number}", "type": "message", "role": "system", "content": content}
                await self.say("conversation.item.create", item=item)
            case "forget" if f"u{number - 1}" in self.chain.session.upstream_edge.carried.log:
                await self.say("conversation.item.delete", item_id=f"u{number - 1}")
        await trio.sleep(1)
        await self.see()


async def talk(steps: list[str]) -> tuple[Snapshot, list[tuple[str, str]], list[dict[str, Any]], Any]:
    async with ChainHarness({}, upstream=Upstreams()) as chain:
        chain.session.parking.allow()
        talker = Talker(chain)
        await talker.do("configure", 0)
        for number, step in enumerate(steps, 1):
            await talker.do(step, number)
        log = chain.session.upstream_edge.carried.log
        return chain.snapshot(), log_of(chain), log.items, chain.session.configuration.asked


async def told_to(chain: ChainHarness) -> list[tuple[str, str]]:
    """The conversation as the model that serves now has it."""
    log = chain.session.upstream_edge.carried.log
    chain.client.take()
    said = []
    for item_id in log.entries:
        await chain.client.send({"type": "conversation.item.retrieve", "item_id": item_id})
        await trio.sleep(1)
        (event,) = chain.client.take()
        assert event["type"] == "conversation.item.retrieved", event
        item = event["item"]
        texts = [part.get("text") or part.get("image_url", "") for part in items.parts_of(item)]
        what = item.get("output") or item.get("arguments") or " ".join(texts)
        said.append((item.get("role") or item["type"], what))
    return said


@settings(derandomize=True, max_examples=25, deadline=None, database=None)
@given(st.lists(st.sampled_from(["say", "show", "call", "configure", "note", "forget"]), max_size=8))
def test_what_is_restored_is_what_was_taken(steps: list[str]) -> None:
    async def run() -> None:
        before, said, entries, asked = await talk(steps)
        async with ChainHarness({}, upstream=Upstreams(), restores=before) as chain:
            session = chain.session
            assert session.id == before.session
            assert session.upstream_edge.carried.log.items == entries
            assert session.configuration.asked == asked
            (created,) = chain.client.take()
            assert created["type"] == "session.created"
            assert created["session"]["instructions"] == asked["instructions"]
            await trio.sleep(1)
            assert session.configuration.effective["instructions"] == asked["instructions"]
            assert await told_to(chain) == said
            assert losses(chain) == [""]
            again = chain.snapshot()
            assert (again.items, again.asked, again.hidden) == (before.items, before.asked, before.hidden)
            assert again.own_ids > before.own_ids  # none is given twice
            chain.check_fates()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_what_was_unanswered_is_asked_again(autojump_clock: Any) -> None:
    async with ChainHarness({}) as chain:
        await chain.upstream.send({"type": "session.created", "event_id": "e1", "session": {"id": "s"}})
        await chain.client.send({"type": "conversation.item.create", "item": {"id": "u1", "type": "message"}})
        await chain.client.send({"type": "response.create", "event_id": "mine"})
        before = chain.snapshot()
    async with ChainHarness({}, restores=before) as chain:
        first, second = chain.upstream.take()
        assert (first["type"], first["item"]["id"]) == ("conversation.item.create", "u1")
        assert (second["type"], second["event_id"]) == ("response.create", "mine")


async def test_what_was_refused_is_not_asked_again(autojump_clock: Any) -> None:
    """Also where neither the client's event nor the error about it has an id."""
    async with ChainHarness({}) as chain:
        await chain.upstream.send({"type": "session.created", "event_id": "e1", "session": {"id": "s"}})
        await chain.client.send({"type": "response.create"})
        response = {"id": "r1", "conversation_id": "c", "status": "in_progress", "output": []}
        await chain.upstream.send({"type": "response.created", "event_id": "e2", "response": response})
        await chain.client.send({"type": "response.create"})
        await chain.client.send({"type": "conversation.item.retrieve", "item_id": "u1"})
        await chain.client.send({"type": "conversation.item.retrieve", "item_id": "u2", "event_id": "mine"})
        active = {"code": "conversation_already_has_active_response", "message": "Wait."}
        await chain.upstream.send({"type": "error", "event_id": "e3", "error": {**active, "event_id": None}})
        left = [event.type for event in chain.snapshot().unanswered]
        assert left == ["conversation.item.retrieve"] * 2
        await chain.upstream.send({"type": "error", "event_id": "e4", "error": {"event_id": "another"}})
        await chain.upstream.send({"type": "error", "event_id": "e5", "error": {"event_id": "mine"}})
        (event,) = chain.snapshot().unanswered
        assert b"u1" in event.payload


class Waits(Plugin[None, None]):
    """Holds every request for an answer."""

    @on_client("response.create")
    def hold(self, session: Session[None], event: Event) -> Hold:
        return Hold("until it is released")


async def test_what_was_held_is_held_again(autojump_clock: Any) -> None:
    created = {"type": "session.created", "event_id": "e1", "session": {"id": "s"}}
    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    async with ChainHarness({"waits": Waits}) as chain:
        await chain.upstream.send(created)
        chain.session.changed = changed
        await chain.client.send({"type": "response.create", "event_id": "mine"})
        assert changes
        await chain.client.send({"type": "input_audio_buffer.commit"})
        await chain.client.send({"type": "conversation.item.create", "item": {"id": "u1", "type": "message"}})
        before = chain.snapshot()
    async with ChainHarness({"waits": Waits}, restores=before) as chain:
        await chain.upstream.send(created)
        assert chain.upstream.take() == []
        chain.session.view("waits").release("until it is released")
        await chain.settle()
        first, second = chain.upstream.take()
        assert (first["type"], first["event_id"]) == ("response.create", "mine")
        assert (second["type"], second["item"]["id"]) == ("conversation.item.create", "u1")
        chain.check_fates()
    async with ChainHarness({}, restores=before) as chain:  # by other plugins, which hold nothing
        assert [event["type"] for event in chain.upstream.take()] == [
            "response.create",
            "conversation.item.create",
        ]


class Hider(Plugin[None, None]):
    """Answers the model's calls by itself, or never."""

    @on_client("conversation.item.create")
    def see(self, session: Session[None], event: Event) -> None:
        session.keep({"seen": session.kept.get("seen", 0) + 1})
        session.hide("call_item")


CALL = {
    "id": "call_item",
    "type": "function_call",
    "name": "dice",
    "call_id": "c1",
    "arguments": "{}",
    "status": "completed",
}


async def in_a_call() -> Snapshot:
    async with ChainHarness({"hider": Hider}) as chain:
        chain.session.parking.allow()
        await chain.client.send({"type": "conversation.item.create", "item": {"id": "u1", "type": "message"}})
        for item in ({"id": "u1", "type": "message", "role": "user", "content": []}, CALL):
            await chain.upstream.send(
                {"type": "conversation.item.added", "event_id": f"e_{item['id']}", "item": item}
            )
        return chain.snapshot()


async def test_the_model_is_told_that_a_hidden_call_will_not_be_answered(autojump_clock: Any) -> None:
    before = await in_a_call()
    async with ChainHarness({"hider": Hider}, restores=before) as chain:
        told = chain.upstream.take()
        assert [event["item"]["type"] for event in told[:-1]] == [
            "message",
            "function_call",
            "function_call_output",
        ]
        assert told[2]["item"]["call_id"] == "c1"
        assert told[-1]["type"] == "response.create"
        assert [event["type"] for event in chain.client.take()] == ["session.created"]
        # The client knows no more of the call than before.
        await chain.client.send({"type": "conversation.item.retrieve", "item_id": "call_item"})
        (error,) = chain.client.take()
        assert error["error"]["code"] == "item_not_found"


async def test_what_stages_keep_is_found_again(autojump_clock: Any) -> None:
    before = await in_a_call()
    async with ChainHarness({"hider": Hider}, restores=before) as chain:
        assert chain.session.view("hider").kept == {"seen": 1}
        await chain.client.send({"type": "conversation.item.create", "item": {"id": "u2", "type": "message"}})
        assert chain.session.view("hider").kept == {"seen": 2}
    async with ChainHarness({"hider": Hider}) as chain:
        view = chain.session.view("hider")
        assert view.kept == {}
        with pytest.raises(ValueError, match="too much to keep"):
            view.keep({"text": "x" * KEPT_BYTES})
        with pytest.raises(TypeError):
            view.keep({"text": object()})


async def test_what_a_client_had_missed_when_its_session_was_put_away_it_gets(autojump_clock: Any) -> None:
    async with ChainHarness({}, upstream=Upstreams(pace=1)) as chain:
        chain.session.parking.allow()
        await chain.settle()
        content = [{"type": "input_text", "text": "how are you"}]
        item = {"id": "u1", "type": "message", "role": "user", "content": content}
        await chain.client.send({"type": "conversation.item.create", "item": item})
        chain.client.connection.abort()
        await chain.settle()
        chain.session.send("upstream", Event({"type": "response.create"}, origin="host"), 0)
        await trio.sleep(30)
        before = snapshot.take(chain.session, put_away=True)
        assert len(chain.snapshot().missed) == 0  # while it lives that would be written again and again
    async with ChainHarness({}, upstream=Upstreams(), restores=before) as chain:
        again = [event["type"] for event in chain.client.take()]
        assert again[0] == "session.created"
        assert "response.output_audio_transcript.done" in again
        assert "response.done" in again
        assert "response.output_audio.delta" not in again


async def test_sums_and_age_go_on(autojump_clock: Any) -> None:
    async with ChainHarness({}, upstream=Upstreams(), principal=Principal(id="kiosk")) as chain:
        await Talker(chain).do("say", 1)
        tokens = chain.session.sums.tokens
        assert tokens
        before = chain.snapshot()
    async with ChainHarness({}, upstream=Upstreams(), restores=before) as chain:
        await trio.sleep(10)
    (closed,) = [fact for fact in chain.facts if isinstance(fact, facts.SessionClosed)]
    assert closed.tokens == tokens
    assert closed.duration_s == pytest.approx(11, abs=0.5)


def test_a_snapshot_of_another_version_is_none() -> None:
    with pytest.raises(ValueError, match="version 2"):
        msgspec.json.decode(
            b'{"version":2,' + msgspec.json.encode(_empty()).partition(b",")[2], type=Snapshot
        )


def _empty() -> Snapshot:
    return Snapshot(
        version=1,
        session="s",
        principal="p",
        model="m",
        session_type="realtime",
        traceparent="",
        age_s=0,
        asked={},
        items=(),
        hidden=(),
        own_ids=("", 0),
        unanswered=(),
        owes_turn=False,
        turns=0,
        tokens=0,
        micro_usd=0,
        kept={},
    )
