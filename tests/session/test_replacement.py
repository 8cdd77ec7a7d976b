"""Another upstream in place of one that is lost: the conversation goes on."""

from typing import Any, ClassVar

import pytest
import trio

from rtpipe import Event, Plugin, Session, facts, on_server
from rtpipe.session.limits import Budget, SessionLimits, Share
from rtpipe.testing import ChainHarness
from tests.session import cuts
from tests.session.cuts import Caller, Upstreams, call, differences, losses

STEP = 7
"""Every boundary would take a minute: ``python -m tests.session.cuts``."""


async def test_wherever_the_upstream_is_cut_the_conversation_is_the_same(autojump_clock: Any) -> None:
    undisturbed = await call()
    assert undisturbed.losses == []
    assert undisturbed.caller.done == 7
    for count in range(0, undisturbed.events_of_first, STEP):
        outcome = await call(f"drop after {count} events")
        assert len(outcome.upstreams.logs) == 2
        assert differences(outcome, undisturbed) == [], count


@pytest.mark.parametrize(
    ("moment", "loss"),
    [
        ("response.created", ""),  # asked for and not begun: asked for again
        ("response.output_text.delta", "1 answer(s) cut off"),
        ("response.done", ""),  # nothing but its end was missing
        ("input_audio_buffer.committed", ""),
        ("conversation.item.input_audio_transcription.completed", "1 item(s) of speech without words"),
    ],
)
async def test_what_is_lost_is_said(autojump_clock: Any, moment: str, loss: str) -> None:
    outcome = await call(f"drop before {moment}")
    (said,) = outcome.losses
    assert loss in said
    assert bool(loss) == bool(said)


@pytest.mark.parametrize("transcribed", [True, False])
async def test_who_waits_for_words_that_will_never_come_is_told(
    autojump_clock: Any, transcribed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not transcribed:
        monkeypatch.setattr(cuts, "CONFIG", {**cuts.CONFIG, "audio": {}})
    words = "conversation.item.input_audio_transcription.completed"
    outcome = await call(f"drop before {words if transcribed else 'response.output_audio.delta'}")
    failed = outcome.caller.of("conversation.item.input_audio_transcription.failed")
    committed = outcome.caller.of("input_audio_buffer.committed")
    assert [each["item_id"] for each in failed] == [each["item_id"] for each in committed] * transcribed
    assert all(each["error"]["code"] == "upstream_connection_lost" for each in failed)


async def test_an_answer_that_was_cut_ends_as_failed(autojump_clock: Any) -> None:
    upstreams = Upstreams("drop before response.output_text.done")
    async with ChainHarness({}, upstream=upstreams, redials=True) as chain:
        caller = Caller(chain)
        await caller.text("u1", "how are you")
        await trio.sleep(5)
        await caller.see()
        (done,) = caller.of("response.done")
        (created,) = caller.of("response.created")
        assert done["response"]["id"] == created["response"]["id"]
        assert done["response"]["status"] == "failed"
        assert done["response"]["status_details"]["error"]["code"] == "upstream_connection_lost"
        (ended,) = [fact for fact in chain.facts if isinstance(fact, facts.ResponseEnded)]
        assert ended.status == "failed"
        await caller.say("response.create", response={"output_modalities": ["text"]})
        await caller.answered_all(1)
        changes = [f.change for f in chain.facts if isinstance(f, facts.LegChanged) and f.leg == "upstream"]
        assert changes == ["attached", "lost", "replaced"]


async def test_wherever_it_is_cut_a_call_is_told_once_by_each_event_that_clients_run_it_on(
    autojump_clock: Any,
) -> None:
    async def told(*faults: str) -> tuple[Upstreams, list[str]]:
        upstreams = Upstreams(*faults)
        async with ChainHarness({}, upstream=upstreams, redials=True) as chain:
            chain.session.upstream_edge.retries = True
            caller = Caller(chain)
            await caller.say("session.update", session=cuts.CONFIG)
            await caller.text("u1", "call dice")
            await caller.answered_all(2)
            with_item = [e for e in caller.events if e.get("item", {}).get("type") == "function_call"]
            ended = [e["response"] for e in caller.of("response.done")]
            called = [r for r in ended if r["status"] == "completed" and "call_id" in str(r["output"])]
            kinds = [e["type"] for e in with_item if e["type"].endswith(".done")]
            kinds += [e["type"] for e in caller.of("response.function_call_arguments.done")]
            return upstreams, kinds + ["response.done"] * len(called)

    whole, undisturbed = await told()
    assert len(undisturbed) == len(set(undisturbed)) == 4
    for count in range(len(whole.logs[0])):
        _, seen = await told(f"drop after {count} events")
        assert sorted(seen) == sorted(undisturbed), count


async def test_what_an_upstream_may_not_have_heard_before_it_was_lost_is_said_to_the_next(
    autojump_clock: Any,
) -> None:
    async with ChainHarness({}, upstream=Upstreams("stall after 1 events"), redials=True) as chain:
        caller = Caller(chain)
        for sound in (*[cuts.LOUD] * 20, *[cuts.QUIET] * 8):
            await caller.say("input_audio_buffer.append", audio=sound)
        chain.session.upstream.connection.abort()
        await caller.answered_all(1)
        (done,) = caller.of("response.done")
        (part,) = done["response"]["output"][0]["content"]
        assert part["transcript"] == "I heard 2.5 seconds of audio."
        assert losses(chain) == [""]


def outage(chain: ChainHarness) -> trio.Event:
    """From now on another upstream answers only once the event is set."""
    redial, served = chain.session.replacement.redial, trio.Event()
    assert redial is not None

    async def late() -> Any:
        await served.wait()
        return await redial()

    chain.session.replacement.redial = late
    return served


async def test_what_comes_while_there_is_no_upstream_waits_bounded(autojump_clock: Any) -> None:
    limits = SessionLimits(outage_bytes=13_000)  # each event counts for 1,024 bytes more
    async with ChainHarness({}, upstream=Upstreams(), redials=True, limits=limits) as chain:
        served = outage(chain)
        chain.session.upstream.connection.abort()
        caller = Caller(chain)
        await caller.text("u1", "first")
        for _ in range(4):
            await caller.say("input_audio_buffer.append", audio="A" * 4000)
        long = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 9000}]}
        await caller.say("conversation.item.create", item=long)
        await caller.say("conversation.item.create", event_id="much", item=long)
        await caller.see()
        (error,) = caller.of("error")
        assert (error["error"]["code"], error["error"]["event_id"]) == ("event_queue_full", "much")
        served.set()
        await caller.answered_all(1)
        assert "audio event(s) dropped" in losses(chain)[0]
        assert sorted(who for who, _ in cuts.log_of(chain)) == ["assistant", "user", "user"]


async def test_what_waits_in_all_sessions_is_bounded_together(autojump_clock: Any) -> None:
    others = Share(Budget(limit=100_000))
    limits = SessionLimits(held=others.budget)
    long = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 8000}]}
    async with ChainHarness({}, upstream=Upstreams(), redials=True, limits=limits) as chain:
        served = outage(chain)
        chain.session.upstream.connection.abort()
        caller = Caller(chain)
        others.hold(88_000)
        for _ in range(4):
            await caller.say("input_audio_buffer.append", audio="A" * 4000)
        assert 98_000 < others.budget.held <= 100_000
        await caller.say("conversation.item.create", item=long)
        assert 97_000 < others.budget.held <= 98_000  # in place of all the audio
        others.hold(100_000)
        await caller.say("input_audio_buffer.append", audio="A" * 4000)
        await caller.say("conversation.item.create", event_id="much", item=long)
        await caller.see()
        (error,) = caller.of("error")
        assert (error["error"]["code"], error["error"]["event_id"]) == ("event_queue_full", "much")
        served.set()
        await trio.sleep(5)
        assert "5 audio event(s) dropped" in losses(chain)[0]
        assert others.budget.held == 100_000
        chain.session.replacement.redial = trio.sleep_forever
        others.hold(0)
        chain.session.upstream.connection.abort()
        await caller.say("conversation.item.create", item=long)
        assert others.budget.held > 8000
    assert others.budget.held == 0


async def test_where_no_other_upstream_is_found_the_session_ends_as_it_would_have(
    autojump_clock: Any,
) -> None:
    async with ChainHarness({}, upstream=Upstreams("drop after 3 events"), redials=True) as chain:

        async def none() -> Any:
            raise trio.TooSlowError

        chain.session.replacement.redial = none
        await Caller(chain).text("u1", "how are you")
        began_s = trio.current_time()
        await chain.session.ended.wait()
        assert trio.current_time() - began_s == pytest.approx(chain.session.limits.outage_s)
        await trio.sleep(2)
        assert chain.client.closing is not None
        assert chain.client.closing.code == 1011
        assert chain.client.take()[-1]["error"]["code"] == "upstream_connection_lost"


async def test_speech_that_was_replayed_as_words_can_still_be_truncated(autojump_clock: Any) -> None:
    upstreams = Upstreams("drop before conversation.item.deleted")
    async with ChainHarness({}, upstream=upstreams, redials=True) as chain:
        caller = Caller(chain)
        content = [{"type": "input_text", "text": "one two three four five six"}]
        message = {"id": "u1", "type": "message", "role": "user", "content": content}
        await caller.say("conversation.item.create", item=message)
        await caller.say("response.create")
        await caller.answered_all(1)
        await caller.say("conversation.item.delete", item_id="u1")
        await trio.sleep(5)
        assert len(upstreams.logs) == 2
        entry = chain.session.upstream_edge.carried.log.items[-1]
        half_ms = round(chain.session.meter.spoken_s * 500)
        await caller.say(
            "conversation.item.truncate", item_id=entry["id"], content_index=0, audio_end_ms=half_ms
        )
        await caller.see()
        (truncated,) = caller.of("conversation.item.truncated")
        assert truncated["audio_end_ms"] == half_ms
        assert cuts.log_of(chain) == [("assistant", "You said: one two")]
        assert '"text":"You said: one two"' in upstreams.logs[1][-3] + upstreams.logs[1][-4]
        assert caller.of("error") == []


@pytest.mark.parametrize("code", [1001, 1011, 1012])
async def test_an_upstream_that_goes_away_is_replaced(autojump_clock: Any, code: int) -> None:
    outcome = await call(f"close {code} after 30 events")
    assert len(outcome.upstreams.logs) == 2


async def test_three_hours_of_a_call_with_a_model_that_ends_every_hour(autojump_clock: Any) -> None:
    upstreams = Upstreams()
    async with ChainHarness({}, upstream=upstreams, redials=True) as chain:
        caller, began_s, count = Caller(chain), trio.current_time(), 0
        await caller.say("session.update", session=cuts.CONFIG)
        while trio.current_time() - began_s < 3 * 3600:
            count += 1
            await caller.text(f"u{count}", f"this is {count}")
            await caller.answered_all(count)
            await trio.sleep(97)
        assert len(upstreams.logs) == 4
        assert caller.of("error") == []
        assert caller.failed == 0
        assert len(caller.of("session.created")) == 1
        assert len(cuts.log_of(chain)) == 2 * count
        assert losses(chain) == ["", "", ""]
        assert chain.client.closing is None


class Asks(Plugin[None, None]):
    """Notes what it hears of another upstream, of answers and of refusals."""

    heard: ClassVar[list[str]]

    def session_open(self) -> None:
        Asks.heard = []

    def upstream_replaced(self) -> None:
        self.heard.append("replaced")

    @on_server("response.created", "error")
    def note(self, event: Event) -> None:
        self.heard.append(
            event.data.get("error", event.data)["event_id" if event.type == "error" else "type"]
        )


async def test_stages_hear_of_another_upstream_before_it_says_anything(autojump_clock: Any) -> None:
    upstreams = Upstreams("drop before response.created")
    async with ChainHarness({"asks": Asks}, upstream=upstreams, redials=True) as chain:
        caller = Caller(chain)
        await caller.text("u1", "how are you")
        for _ in range(20):  # what waits behind the request gives the next one time to answer
            await caller.say("input_audio_buffer.clear")
        await caller.answered_all(1)
        assert Asks.heard == ["replaced", "response.created"]


async def test_what_a_stage_asked_in_silence_is_asked_again_in_silence(autojump_clock: Any) -> None:
    upstreams = Upstreams("drop before response.output_text.done")
    async with ChainHarness({"asks": Asks}, upstream=upstreams, redials=True) as chain:
        chain.session.upstream_edge.retries = True
        response = {"output_modalities": ["text"], "conversation": "none"}
        view: Any = chain.session.view("asks")
        view.send_upstream(Event({"type": "response.create", "response": response}))
        await trio.sleep(5)
        ended = [(f.status, f.origin) for f in chain.facts if isinstance(f, facts.ResponseEnded)]
        assert ended == [("failed", "asks"), ("completed", "asks")]
        assert not [kind for kind in chain.client.take_types() if kind.startswith("response.")]


async def test_a_stage_hears_that_there_was_no_room_and_the_client_does_not(autojump_clock: Any) -> None:
    limits = SessionLimits(outage_bytes=1000)
    async with ChainHarness({"asks": Asks}, upstream=Upstreams(), redials=True, limits=limits) as chain:
        await chain.settle()
        chain.client.take()
        chain.session.upstream.connection.abort()
        await chain.settle()
        view: Any = chain.session.view("asks")
        item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x" * 2000}]}
        create = Event({"type": "conversation.item.create", "item": item})
        _, second = view.send_upstream(create), view.send_upstream(create)
        await chain.settle()
        assert Asks.heard == [second]
        assert chain.client.take() == []


class Gates(Plugin[None, None]):
    def session_open(self, session: Session[None]) -> None:
        session.gate_turns(True)


async def test_a_turn_that_is_told_again_is_answered_once(autojump_clock: Any) -> None:
    upstreams = Upstreams("drop before conversation.item.added")
    async with ChainHarness({"gates": Gates}, upstream=upstreams, redials=True) as chain:
        caller = Caller(chain)
        for sound in (*[cuts.LOUD] * 8, *[cuts.QUIET] * 8):
            await caller.say("input_audio_buffer.append", audio=sound)
        await trio.sleep(20)
        await caller.see()
        assert len(upstreams.logs) == 2
        assert (caller.done, caller.failed, caller.of("error")) == (1, 0, [])
        assert sum('"response.create"' in line for log in upstreams.logs for line in log) == 1
        assert [who for who, _ in cuts.log_of(chain)] == ["user", "assistant"]
