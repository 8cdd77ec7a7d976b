"""Races, voices out of band, creates that are one, failures, and every option."""

from typing import Any

import pytest
import trio

from rtpipe import Event, Json, Plugin, facts
from rtpipe.testing import ChainHarness, SessionLimits
from rtpipe_response_lock import ResponseLock
from rtpipe_response_lock.asked import STAMP
from rtpipe_response_lock.plugin import MAX_REFUSALS

ACTIVE = "conversation_already_has_active_response"
AUDIBLE = {"conversation": "none", "output_modalities": ["audio"]}
SILENT = {"conversation": "none", "output_modalities": ["text"]}


class Writer(Plugin[None, None]):
    """A stage of whose view the test makes use."""


def lock(**options: Any) -> ChainHarness:
    return ChainHarness({"writer": Writer, "response-lock": (ResponseLock, options)})


async def create(chain: ChainHarness, response: Json | None = None, **rest: Any) -> list[Json]:
    """A client's create; returns what went up."""
    event = {"type": "response.create", **rest}
    await chain.client.send(event if response is None else event | {"response": response})
    return chain.upstream.take()


async def write(chain: ChainHarness, response: Json | None = None, *, audible: bool = True) -> list[Json]:
    """A stage's create; returns what went up."""
    event = Event({"type": "response.create", "response": response or {}})
    chain.session.view("writer").send_upstream(event, audible=audible)
    await chain.settle()
    return chain.upstream.take()


async def begin(chain: ChainHarness, response_id: str, asked: Json | None = None, **rest: Any) -> list[Json]:
    """The upstream announces a response, to a create or to the voice; returns what went up."""
    wish = (asked or {}).get("response", {})
    response = {
        "id": response_id,
        "conversation_id": None if wish.get("conversation") == "none" else "conv",
        "metadata": wish.get("metadata"),
        **rest,
    }
    await chain.upstream.send({"type": "response.created", "event_id": "e", "response": response})
    return chain.upstream.take()


async def done(chain: ChainHarness, response_id: str, **rest: Any) -> list[Json]:
    """A response ends; returns what went up."""
    response = {"id": response_id, "status": "completed", **rest}
    await chain.upstream.send({"type": "response.done", "event_id": "e", "response": response})
    return chain.upstream.take()


async def refuse(chain: ChainHarness, event_id: str | None, code: str = ACTIVE) -> list[Json]:
    """The upstream refuses a create; returns what went up."""
    error = {
        "code": code,
        "event_id": event_id,
        "message": "",
        "param": None,
        "type": "invalid_request_error",
    }
    await chain.upstream.send({"type": "error", "event_id": "e", "error": error})
    return chain.upstream.take()


def waited(chain: ChainHarness) -> list[str]:
    return [fact.outcome for fact in chain.facts if isinstance(fact, facts.Waited)]


# --- who waits by itself


async def test_a_free_lock_holds_nothing_and_rewrites_no_create_that_has_id_and_metadata() -> None:
    text = b'{ "type":"response.create" , "event_id":"a", "response":{"x":1.0e2,"metadata":{"m":"1"}} }'
    async with lock() as chain:
        for number in range(3):
            await chain.client.send(text)
            assert chain.upstream.payloads.pop() == text
            response_id = f"r{number}"
            await begin(chain, response_id, {"response": {"metadata": {"m": "1"}}})
            await done(chain, response_id)
        assert waited(chain) == []
        assert chain.client.take_types() == ["response.created", "response.done"] * 3


async def test_ids_and_stamps_that_the_client_did_not_give_are_never_shown_to_it() -> None:
    async with lock() as chain:
        (sent,) = await create(chain)
        assert sent["event_id"].startswith("rtp_")
        assert list(sent["response"]["metadata"]) == [STAMP]
        await begin(chain, "r1", sent)
        await done(chain, "r1", metadata=sent["response"]["metadata"])
        assert [event["response"]["metadata"] for event in chain.client.take()] == [None, None]
        (sent,) = await create(chain)
        await refuse(chain, sent["event_id"], "invalid_value")
        (error,) = chain.client.take()
        assert error["error"]["event_id"] is None
        assert error["error"]["code"] == "invalid_value"


@pytest.mark.parametrize("response", ["text", {"metadata": "text"}])
async def test_a_create_that_the_upstream_will_refuse_is_for_the_upstream_to_refuse(response: Any) -> None:
    async with lock() as chain:
        (sent,) = await create(chain, response, event_id="a")
        assert sent == {"type": "response.create", "event_id": "a", "response": response}


# --- lost races


@pytest.mark.parametrize("own_id", [{"event_id": "a"}, {}])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_lost_race_is_the_locks_business(own_id: Json, named: bool, announced: bool) -> None:
    async with lock() as chain:
        (first,) = await create(chain, **own_id)
        await create(chain, event_id="later")
        if announced:
            await begin(chain, "voice")
        assert await refuse(chain, first["event_id"] if named else None) == []
        if not announced:
            await begin(chain, "voice")
        assert await done(chain, "voice") == [first]
        await begin(chain, "r1", first)
        (later,) = await done(chain, "r1")
        assert later["event_id"] == "later"
        assert chain.client.take_types() == ["response.created", "response.done"] * 2
        assert waited(chain) == ["requeued", "released", "released"]
        chain.check_fates()


async def test_a_voice_that_begins_and_ends_while_a_create_is_on_its_way() -> None:
    async with lock() as chain:
        (first,) = await create(chain)
        await begin(chain, "voice")
        # the create may still be answered, or refused: nothing else goes
        assert await create(chain, event_id="later") == []
        assert await done(chain, "voice") == []
        await begin(chain, "r1", first)
        assert [event["event_id"] for event in await done(chain, "r1")] == ["later"]
        assert "error" not in chain.client.take_types()


async def test_a_stages_create_that_lost_goes_again_with_its_own_id_and_its_answer_stays_hidden() -> None:
    async with lock() as chain:
        (first,) = await write(chain, audible=False)
        await begin(chain, "voice")
        await refuse(chain, first["event_id"])
        assert await done(chain, "voice") == [first]
        chain.client.take()
        await begin(chain, "r1", first)
        await done(chain, "r1")
        assert chain.client.take() == []


async def test_an_upstream_without_metadata_may_answer_another_create_than_it_seemed() -> None:
    async with lock() as chain:
        (first,) = await create(chain, event_id="a")
        await chain.upstream.send({"type": "response.created", "response": {"id": "voice"}})
        assert await refuse(chain, "a") == []
        assert await done(chain, "voice") == [first]


async def test_an_upstream_that_repeats_no_metadata_is_found_out_once(autojump_clock: Any) -> None:
    async with lock() as chain:
        await create(chain, event_id="a")
        await create(chain, event_id="b")
        await begin(chain, "r1")
        assert await done(chain, "r1") == []
        await trio.sleep(10.1)
        assert [event["event_id"] for event in chain.upstream.take()] == ["b"]
        await create(chain, event_id="c")
        await begin(chain, "r2")
        assert [event["event_id"] for event in await done(chain, "r2")] == ["c"]


async def test_a_create_that_is_always_refused_is_given_up_in_the_end(autojump_clock: Any) -> None:
    async with lock() as chain:
        sent = await create(chain, event_id="a")
        for _ in range(MAX_REFUSALS):
            assert len(sent) == 1
            await refuse(chain, "a")
            await trio.sleep(10.1)
            assert chain.client.take() == []
            sent = chain.upstream.take()
        await refuse(chain, "a")
        (error,) = chain.client.take()
        assert error["error"]["code"] == ACTIVE
        await trio.sleep(10.1)
        assert chain.upstream.take() == []


async def test_without_room_to_wait_a_refusal_is_told() -> None:
    async with ChainHarness({"response-lock": ResponseLock}, limits=SessionLimits(hold_bytes=2000)) as chain:
        await create(chain, event_id="a")
        await create(chain, event_id="b")
        await refuse(chain, "a")
        assert [event["error"]["event_id"] for event in chain.client.take()] == ["a"]


# --- voices out of band


@pytest.mark.parametrize("other", [None, AUDIBLE])
async def test_what_is_heard_waits_for_what_is_heard_in_order(other: Json | None) -> None:
    async with lock() as chain:
        (first,) = await write(chain, AUDIBLE)
        await begin(chain, "r1", first, output_modalities=["audio"])
        assert await create(chain, other, event_id="b") == []
        assert await create(chain, AUDIBLE, event_id="c") == []
        (second,) = await done(chain, "r1")
        assert second["event_id"] == "b"
        await begin(chain, "r2", second)
        assert [event["event_id"] for event in await done(chain, "r2")] == ["c"]


@pytest.mark.parametrize(("response", "audible"), [(SILENT, True), (AUDIBLE, False)])
async def test_what_is_not_heard_overlaps(response: Json, audible: bool) -> None:
    async with lock() as chain:
        (first,) = await create(chain, event_id="a")
        (silent,) = await write(chain, response, audible=audible)
        await begin(chain, "s1", silent)
        await begin(chain, "r1", first)
        assert await create(chain, event_id="b") == []
        # not even behind a held one
        assert len(await write(chain, response, audible=audible)) == 1
        assert await done(chain, "s1") == []
        assert [event["event_id"] for event in await done(chain, "r1")] == ["b"]


async def test_the_sessions_modalities_decide_where_a_create_names_none() -> None:
    async with lock() as chain:
        session = {"type": "realtime", "output_modalities": ["text"]}
        await chain.upstream.send({"type": "session.created", "event_id": "e", "session": session})
        assert len(await create(chain, event_id="a")) == 1
        assert len(await create(chain, {"conversation": "none"})) == 1
        await chain.upstream.send(
            {
                "type": "session.updated",
                "event_id": "e",
                "session": session | {"output_modalities": ["audio"]},
            }
        )
        assert await create(chain, {"conversation": "none"}) == []


async def test_a_voice_that_joins_the_filler_is_waited_for_too() -> None:
    async with lock() as chain:
        (filler,) = await write(chain, AUDIBLE)
        await begin(chain, "f", filler)
        await begin(chain, "voice")
        assert await create(chain, event_id="a") == []
        assert await done(chain, "f") == []
        assert len(await done(chain, "voice")) == 1


# --- automatic creates that are one


async def test_automatic_creates_become_one_behind_what_they_were_sent_for() -> None:
    async with lock() as chain:
        await begin(chain, "voice")
        sent = []
        for number in range(3):
            item = {"id": f"i{number}", "type": "function_call_output"}
            chain.session.view("writer").send_upstream(
                Event({"type": "conversation.item.create", "item": item})
            )
            sent += await write(chain)
        # the model reads all three results before it answers, once
        assert [event["item"]["id"] for event in sent] == ["i0", "i1", "i2"]
        assert [event["type"] for event in await done(chain, "voice")] == ["response.create"]
        assert waited(chain) == ["coalesced", "coalesced", "released"]
        chain.check_fates()


async def test_nothing_else_becomes_one() -> None:
    async with lock() as chain:
        await begin(chain, "voice")
        await create(chain, event_id="client 1")
        await create(chain, event_id="client 2")
        await write(chain, {"instructions": "a"})
        await write(chain, {"instructions": "b"})
        await write(chain, {"instructions": "b"}, audible=False)
        await create(chain, {"instructions": "b"}, event_id="client 3")
        await write(chain, {"instructions": "b"}, audible=False)
        names = []
        running = "voice"
        while sent := await done(chain, running):
            (event,) = sent
            names.append(event["response"].get("instructions") or event["event_id"])
            running = event["event_id"]
            await begin(chain, running, event)
        assert names == ["client 1", "client 2", "a", "b", "b", "b", "b"]
        assert "coalesced" not in waited(chain)


# --- options


async def test_max_waiting(autojump_clock: Any) -> None:
    async with lock(max_waiting=2) as chain:
        await begin(chain, "voice")
        for name in "abc":
            await create(chain, event_id=name)
        (error,) = [event for event in chain.client.take() if event["type"] == "error"]
        assert error["error"]["event_id"] == "c"
        assert error["error"]["code"] == "too_many_waiting"
        assert error["error"]["type"] == "invalid_request_error"
        # what the host gave up makes room
        await trio.sleep(40)
        chain.client.take()
        assert chain.session.lane("upstream").waiting == 1
        await create(chain, event_id="d")
        assert chain.client.take() == []
    async with lock() as chain:
        await begin(chain, "voice")
        for number in range(100):
            await create(chain, event_id=str(number))
        assert chain.client.take_types() == ["response.created"]


LIMITED = {"status": "failed", "status_details": {"error": {"code": "inference_rate_limit_exceeded"}}}


async def test_retry_failed(autojump_clock: Any) -> None:
    async with lock(retry_failed=2) as chain:
        (first,) = await write(chain)
        await create(chain, event_id="later")
        for pause in (1, 2):
            await begin(chain, "r", first)
            assert await done(chain, "r", **LIMITED) == []
            await trio.sleep(pause - 0.1)
            assert chain.upstream.payloads == []
            await trio.sleep(0.2)
            assert chain.upstream.take() == [first]
        await begin(chain, "r", first)
        assert [event["event_id"] for event in await done(chain, "r", **LIMITED)] == ["later"]
        assert waited(chain) == ["retried", "released", "retried", "released", "released"]
        chain.check_fates()
    async with lock() as chain:
        (first,) = await write(chain)
        await begin(chain, "r", first)
        await done(chain, "r", **LIMITED)
        await trio.sleep(5)
        assert chain.upstream.take() == []


@pytest.mark.parametrize(
    "end",
    [
        {"status": "completed"},
        {"status": "cancelled"},
        {**LIMITED, "output": [{"type": "message"}]},
        {"status": "failed", "status_details": {"error": {"code": "insufficient_quota"}}},
    ],
)
async def test_what_is_not_tried_again(end: Json, autojump_clock: Any) -> None:
    async with lock(retry_failed=3) as chain:
        (first,) = await write(chain)
        await begin(chain, "r", first)
        await done(chain, "r", **end)
        await trio.sleep(5)
        assert chain.upstream.take() == []


async def test_a_clients_own_create_is_never_repeated(autojump_clock: Any) -> None:
    async with lock(retry_failed=3) as chain:
        (first,) = await create(chain)
        await begin(chain, "r", first)
        await done(chain, "r", **LIMITED)
        await trio.sleep(5)
        assert chain.upstream.take() == []
        assert chain.client.take()[-1]["response"]["status"] == "failed"


@pytest.mark.parametrize("gated", [True, False])
async def test_gate_turns(gated: bool) -> None:
    detector = {"type": "server_vad", "create_response": True}
    session = {"type": "realtime", "audio": {"input": {"turn_detection": detector}}}
    async with lock(gate_turns=gated) as chain:
        await chain.upstream.send({"type": "session.created", "event_id": "e", "session": session})
        (*_, update) = chain.upstream.take() or [None]
        assert (update is not None) == gated
        if update is not None:
            await chain.upstream.send(
                {"type": "session.updated", "event_id": "e", "session": update["session"]}
            )
        (first,) = await create(chain)
        await begin(chain, "r1", first)
        for item_id in ("i1", "i2"):
            await chain.upstream.send({"type": "input_audio_buffer.speech_stopped", "item_id": item_id})
            await chain.upstream.send({"type": "input_audio_buffer.committed", "item_id": item_id})
        assert chain.upstream.take() == []
        sent = await done(chain, "r1")
        # two turns that went by are one answer
        assert [event["type"] for event in sent] == ["response.create"] * gated
        assert waited(chain) == ["coalesced", "released"] * gated


async def test_an_orphan_is_a_fact(autojump_clock: Any) -> None:
    async with lock(created_timeout_s=3) as chain:
        await create(chain)
        await trio.sleep(3.1)
        (fact,) = [fact for fact in chain.facts if isinstance(fact, facts.Waited)]
        assert (fact.stage, fact.outcome) == ("response-lock", "orphaned")
        assert fact.duration_s == pytest.approx(3)


async def test_a_cancel_that_crosses_the_beginning_keeps_the_lock_until_the_end() -> None:
    async with lock() as chain:
        (first,) = await create(chain)
        await chain.client.send({"type": "response.cancel"})
        assert chain.upstream.take_types() == ["response.cancel"]
        assert await create(chain, event_id="b") == []
        assert await begin(chain, "r1", first) == []
        assert [event["event_id"] for event in await done(chain, "r1", status="cancelled")] == ["b"]
