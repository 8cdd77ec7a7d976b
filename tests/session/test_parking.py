"""A client that is gone and comes back."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio

from rtpipe import Event, Plugin, Session, facts
from rtpipe.session.closing import Ending
from rtpipe.session.limits import Budget, SessionLimits, Share
from rtpipe.session.sums import Sums
from rtpipe.testing import ChainHarness
from rtpipe.testing.harness import End
from rtpipe.transport.connection import Closing, ConnectionLost
from rtpipe.transport.memory import memory_pair
from tests.session import cuts
from tests.session.cuts import Upstreams

ANSWER = {"type": "response.create", "response": {"output_modalities": ["text"]}}


async def resume(chain: ChainHarness, after: str | None = None) -> End:
    """A new connection of the client's takes the session up."""
    ours, theirs = memory_pair(10_000)
    chain.client = End(theirs, chain._nursery)
    await chain.session.parking.resume(ours, after)
    await chain.settle()
    return chain.client


def parked(**limits: Any) -> ChainHarness:
    return ChainHarness({}, upstream=Upstreams(), limits=SessionLimits(**limits))


def said(event_id: str, words: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": words}]
    item = {"id": event_id, "type": "message", "role": "user", "content": content}
    return {"type": "conversation.item.create", "item": item}


async def test_wherever_a_client_that_counts_is_cut_off_it_gets_every_event_once(autojump_clock: Any) -> None:
    async def run(cut: int | None) -> tuple[list[str], int]:
        async with parked() as chain:
            chain.session.parking.allow()
            got: list[dict[str, Any]] = []

            async def see() -> None:
                got.extend(chain.client.take())
                if cut is not None and len(got) > cut and not chain.session.parking.was_resumed:
                    # What came behind the cut has arrived, but this client never saw it.
                    del got[cut + 1 :]
                    chain.client.connection.abort()
                    await trio.sleep(1)
                    await resume(chain, got[-1]["event_id"])
                    again = chain.client.take()
                    assert again[0]["type"] == "session.created"
                    assert again[0]["session"]["type"] == "realtime"
                    got.extend(again[1:])

            await chain.settle()
            await see()
            for words in ("one", "two"):
                await chain.client.send(said(f"u_{words}", words))
                await see()
                await chain.client.send(ANSWER)
                await trio.sleep(1)
                await see()
            chain.check_fates()
            assert chain.client.closing is None
            return [event["event_id"] for event in got], len(got)

    events, count = await run(None)
    assert count > 30
    for cut in range(count):
        seen, _ = await run(cut)
        assert len(set(seen)) == len(seen), cut
        assert len(seen) == len(events), cut


async def test_one_that_does_not_count_gets_no_tail_of_an_answer(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        await chain.client.send(said("u1", "a tail"))
        chain.client.take()
        await chain.session.upstream.connection.send(b'{"type":"response.cancel"}')
        chain.client.connection.abort()
        await chain.settle()
        lane = chain.session.lane("downstream")
        for kind in ("response.output_text.delta", "response.created", "response.output_text.done"):
            response = {"response": {"id": "r2"}} if kind == "response.created" else {}
            response_id = "r1" if kind.endswith("delta") else "r2"
            event = {"type": kind, "response_id": response_id, **response}
            lane.inject(Event(event, origin="host"), 0)
        await chain.settle()
        await resume(chain)
        kinds = chain.client.take_types()
        assert kinds == ["session.created", "error", "response.created", "response.output_text.done"]
        (report,) = [
            f.cause for f in chain.facts if isinstance(f, facts.LegChanged) and f.change == "resumed"
        ]
        assert report == "1 event(s) of an answer begun before"


async def test_nor_does_it_get_one_that_is_still_to_come(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        lane = chain.session.lane("downstream")

        async def of(response: str, *kinds: str) -> None:
            for kind in kinds:
                named = {"response_id": response, "response": {"id": response}}
                lane.inject(
                    Event({"type": kind, "event_id": f"{response}_{kind}", **named}, origin="host"), 0
                )
            await chain.settle()

        await of("r1", "response.created", "response.output_text.delta")
        chain.client.connection.abort()
        await chain.settle()
        await resume(chain)
        assert chain.client.take_types() == ["session.created"]
        await of("r1", "response.output_text.delta")
        await of("r2", "response.created", "response.output_text.delta")
        await of("r1", "response.output_text.done", "response.done")
        await of("r2", "response.done")
        kinds = ["response.created", "response.output_text.delta", "response.done"]
        assert [(e["response_id"], e["type"]) for e in chain.client.take()] == [
            ("r2", kind) for kind in kinds
        ]
        report = [f.cause for f in chain.facts if isinstance(f, facts.LegChanged) and f.change == "resumed"]
        assert report == ["1 answer(s) begun before that go on"]


async def test_what_it_tells_again_is_answered_and_not_told_twice(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        await chain.client.send(said("u1", "once"))
        chain.client.connection.abort()
        await chain.settle()
        await resume(chain)
        chain.client.take()
        await chain.client.send(said("u1", "once"))
        added, done = chain.client.take()
        assert (added["type"], done["type"]) == ("conversation.item.added", "conversation.item.done")
        assert added["item"]["id"] == done["item"]["id"] == "u1"
        assert cuts.log_of(chain) == [("user", "once")]


async def test_what_is_not_answered_yet_is_not_told_twice_either(autojump_clock: Any) -> None:
    delete = {"type": "conversation.item.delete", "item_id": "u1"}
    async with ChainHarness({}) as chain:
        chain.session.parking.allow()
        await chain.client.send(said("u1", "once"))
        chain.client.connection.abort()
        await resume(chain)
        await chain.client.send(said("u1", "once"))
        assert chain.upstream.take_types() == ["conversation.item.create"]
        added = {"type": "conversation.item.added", "event_id": "e1", "item": said("u1", "once")["item"]}
        await chain.upstream.send(added)
        assert [event.get("event_id") for event in chain.client.take()[1:]] == ["e1"]
        for event in (delete, said("u1", "anew")):
            await chain.client.send(event)
        assert chain.upstream.take() == [delete, said("u1", "anew")]


async def test_one_that_does_not_come_back_ends_the_session(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        began_s = trio.current_time()
        chain.client.connection.abort()
        await chain.session.ended.wait()
        assert trio.current_time() - began_s == pytest.approx(60)
        assert chain.session.ending.cause == "client"


@pytest.mark.parametrize(("code", "ends"), [(1000, True), (1001, False), (1006, False)])
async def test_only_a_goodbye_ends_it_at_once(autojump_clock: Any, code: int, ends: bool) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        if code == 1006:
            chain.client.connection.abort()
        else:
            await chain.client.connection.close(code, "")
        await chain.settle()
        assert chain.session.ended.is_set() == ends


async def test_without_a_key_it_ends_too(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.client.connection.abort()
        await chain.settle()
        assert chain.session.ended.is_set()


async def test_what_waits_for_it_is_bounded(autojump_clock: Any) -> None:
    async with parked(parked_audio_s=0.5, parked_bytes=20_000) as chain:
        chain.session.parking.allow()
        await chain.client.send(said("u1", "speak to me for a while"))
        await chain.client.send({"type": "response.create"})
        chain.client.take()
        chain.client.connection.abort()
        await trio.sleep(5)
        await resume(chain, "event_unknown")
        (report,) = [
            f.cause for f in chain.facts if isinstance(f, facts.LegChanged) and f.change == "resumed"
        ]
        assert "position that is not known" in report
        chain.client.connection.abort()
        upstream = chain.session.upstream.connection
        assert upstream is not None
        with suppress(ConnectionLost):
            for number in range(100):
                await upstream.send(msgspec.json.encode(said(f"x{number}", "x" * 1000)))
        await trio.sleep(1)
        assert chain.session.ending is not None
        assert "too much waited" in chain.session.ending.detail


async def test_what_all_sessions_keep_for_clients_that_are_gone_is_bounded_together(
    autojump_clock: Any,
) -> None:
    others = Share(Budget(limit=100_000))
    async with parked(held=others.budget) as chain:
        chain.session.parking.allow()
        for number in range(30):
            await chain.client.send(said(f"u{number}", "x" * 1000))
        last = [event["event_id"] for event in chain.client.take()]
        assert others.budget.held == 0  # nobody is gone
        others.hold(20_000)
        chain.client.connection.abort()
        await trio.sleep(1)
        assert 48_000 < others.budget.held <= 50_000  # what was sent last has half of it
        await resume(chain, last[0])
        assert others.budget.held == 20_000
        chain.client.connection.abort()
        await trio.sleep(1)
        others.hold(100_000)
        audio = msgspec.json.encode({"type": "response.output_audio.delta", "delta": "A" * 400})
        assert chain.session.parking.keep(audio) == "lost"
        assert chain.session.ending is None  # a little audio is missing
        upstream = chain.session.upstream.connection
        assert upstream is not None
        await upstream.send(msgspec.json.encode(said("x", "x")))
        await trio.sleep(1)
        assert chain.session.ending is not None
        assert "too much waited" in chain.session.ending.detail
        causes = [f.cause for f in chain.facts if isinstance(f, facts.LegChanged) and f.change == "resumed"]
        assert causes == ["1 position that is not known any more"]
        others.hold(0)
    assert others.budget.held == 0


async def test_a_second_connection_takes_the_place_of_the_first(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        first = chain.client
        await resume(chain)
        assert first.closing is not None
        assert first.closing.code == 1000
        assert chain.client.take_types() == ["session.created"]
        await chain.client.send(said("u1", "still here"))
        assert chain.client.take_types() == ["conversation.item.added", "conversation.item.done"]


async def test_what_nobody_came_back_for_is_said_when_the_session_is_closed(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        chain.client.connection.abort()
        await chain.settle()
        for number in range(3):
            chain.session.lane("downstream").inject(Event({"type": f"unknown.{number}"}, origin="host"), 0)
        await chain.session.ended.wait()
    (closed,) = [fact for fact in chain.facts if isinstance(fact, facts.SessionClosed)]
    assert closed.lost == "client: 3 event(s) that it did not come back for"


def test_the_list_of_losses_is_bounded() -> None:
    sums = Sums()
    for number in range(1000):
        sums.add(facts.LegChanged(leg="upstream", change="replaced", cause=f"loss {number}"))
        sums.add(facts.LegChanged(leg="upstream", change="replaced", cause=""))
    assert [loss.what for loss in sums.losses][-1] == "loss 999"
    assert len(sums.losses) == 50
    assert sums.lost.startswith("995 times before; upstream: loss 995; ")


async def test_an_answer_that_pauses_is_cancelled_and_asked_for_again(autojump_clock: Any) -> None:
    upstreams = Upstreams(pace=1)
    async with ChainHarness({}, upstream=upstreams) as chain:
        chain.session.parking.allow()
        chain.session.parking.pausing.is_wanted = True
        await chain.client.send(said("u1", "one two three four five six seven eight nine ten"))
        await chain.client.send({"type": "response.create", "event_id": "mine"})
        await trio.sleep(0.5)
        before = chain.client.take_types()
        assert "response.output_audio.delta" in before
        assert "response.done" not in before
        chain.client.connection.abort()
        await trio.sleep(30)
        ended = [fact.status for fact in chain.facts if isinstance(fact, facts.ResponseEnded)]
        assert ended == ["cancelled"]
        assert cuts.log_of(chain) == [("user", "one two three four five six seven eight nine ten")]
        await resume(chain)
        await trio.sleep(30)
        events = chain.client.take()
        kinds = [event["type"] for event in events]
        assert kinds[0] == "session.created"
        assert kinds.index("conversation.item.deleted") < kinds.index("response.created")
        assert kinds.count("response.created") == kinds.count("response.done") == 1
        assert "error" not in kinds
        done = next(event for event in events if event["type"] == "response.done")
        assert done["response"]["status"] == "completed"
        assert [who for who, _ in cuts.log_of(chain)] == ["user", "assistant"]
        chain.check_fates()


async def test_one_that_begins_while_nobody_is_there_pauses_too(autojump_clock: Any) -> None:
    upstreams = Upstreams(pace=1)
    async with ChainHarness({}, upstream=upstreams) as chain:
        chain.session.parking.allow()
        chain.session.parking.pausing.is_wanted = True
        await chain.client.connection.send(msgspec.json.encode(said("u1", "hello")))
        await chain.client.connection.send(msgspec.json.encode({"type": "response.create"}))
        await chain.client.connection.close(1001, "")
        await trio.sleep(30)
        assert [f.status for f in chain.facts if isinstance(f, facts.ResponseEnded)] == ["cancelled"]
        await resume(chain)
        await trio.sleep(30)
        statuses = [e["response"]["status"] for e in chain.client.take() if e["type"] == "response.done"]
        assert statuses == ["cancelled", "completed"]


async def test_unless_it_is_to_pause_an_answer_goes_on(autojump_clock: Any) -> None:
    async with ChainHarness({}, upstream=Upstreams(pace=1)) as chain:
        chain.session.parking.allow()
        await chain.client.send(said("u1", "hello"))
        await chain.client.send({"type": "response.create"})
        chain.client.connection.abort()
        await trio.sleep(30)
        assert [f.status for f in chain.facts if isinstance(f, facts.ResponseEnded)] == ["completed"]


async def test_one_that_is_back_at_once_is_not_given_up_later(autojump_clock: Any) -> None:
    async with parked(resume_window_s=10) as chain:
        chain.session.parking.allow()
        for _ in range(20):  # which of the two tasks is first is left to chance
            chain.session.client.detach()
            chain.session.parking.lost(Closing(1006, "", clean=False))
            await resume(chain)
        await trio.sleep(11)
        assert chain.session.ending is None


async def test_one_that_is_lost_as_it_comes_back_to_a_session_that_has_ended(autojump_clock: Any) -> None:
    async with parked() as chain:
        chain.session.parking.allow()
        parking = chain.session.parking
    ours, theirs = memory_pair()
    theirs.abort()
    with pytest.raises(ConnectionLost):
        await parking.resume(ours, None)


class Attentive(Plugin):
    """Takes its time to hear that the client is back."""

    async def client_attached(self, session: Session[Any]) -> None:
        await trio.sleep(0.5)


async def test_a_session_may_be_over_before_all_stages_have_heard_that_its_client_is_back(
    autojump_clock: Any,
) -> None:
    async with ChainHarness({"a": Attentive, "b": Attentive}) as chain:
        chain.session.parking.allow()
        chain.client.connection.abort()
        await chain.settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resume, chain)
            await trio.sleep(0.1)
            chain.session.end(Ending(1000, "", "client"))
            await trio.sleep(0.1)
            chain.session.forget()
