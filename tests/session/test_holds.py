"""Holding: what waits, what passes, how long and how much."""

import pytest
import trio

from rtpipe import Event, Hold, Plugin, facts, on_client, on_server
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM
from rtpipe.session.holds import Held, HoldQueue
from rtpipe.session.limits import Budget, SessionLimits
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


class Passive(Plugin[None, None]):
    """A stage of whose view the test makes use."""


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


def entry(kind, name, key=None, at=0.0, put_back=False):
    return Held(Event({"type": kind, "name": name}), kind, key, at, put_back=put_back)


def names(queue):
    taken = []
    while (held := queue.take()) is not None:
        taken.append(held.event.data["name"])
    return taken


def test_what_is_released_goes_in_the_order_of_the_queue():
    queue = HoldQueue(UPSTREAM, 100_000)
    for name in "abc":
        queue.add(entry("response.create", name, name))
    queue.release("b")
    assert names(queue) == []
    assert (queue.holds("a"), queue.holds("b")) == (True, False)
    queue.release("a")
    assert names(queue) == ["a", "b"]
    queue.release("c")
    assert names(queue) == ["c"]
    assert not queue.blocks("response.create")


def test_what_goes_on_as_a_smaller_event_leaves_nothing_in_the_budget():
    budget = Budget()
    queue = HoldQueue(UPSTREAM, 100_000, budget)
    held = entry("conversation.item.create", "a", "k")
    held.event = Event({"type": held.kind, "image": "x" * 50_000})
    queue.add(held)
    before = budget.held
    queue.release("k", Event({"type": held.kind, "image": "x"}))
    assert budget.held == before - 49_999
    queue.take()
    assert budget.held == 0


def test_what_is_put_back_comes_first_in_the_order_it_was_put_back():
    queue = HoldQueue(UPSTREAM, 100_000)
    queue.add(entry("conversation.item.create", "item"))
    queue.add(entry("response.create", "later", "k"))
    queue.add(entry("response.create", "a", "k", put_back=True))
    queue.add(entry("response.create", "b", "k", put_back=True))
    assert names(queue) == []
    queue.release("k")
    assert names(queue) == ["a", "b", "item", "later"]


def test_an_event_grows_old_from_when_it_is_the_first():
    queue = HoldQueue(UPSTREAM, 100_000)
    queue.add(entry("response.create", "a", "a", 0.0))
    queue.add(entry("response.create", "b", "b", 1.0))
    queue.add(entry("input_audio_buffer.append", "other row", "c", 2.0))
    assert queue.expire(9, 10) == []
    assert [held.key for held in queue.expire(10, 10)] == ["a"]
    assert queue.expire(11, 10) == []
    assert [held.key for held in queue.expire(12, 10)] == ["c"]
    # something goes in front again: the time begins anew
    queue.add(entry("response.create", "a", "a", 13.0, put_back=True))
    assert queue.expire(20, 10) == []
    queue.drop("a")
    assert queue.expire(23, 10) == []
    assert [held.key for held in queue.expire(33, 10)] == ["b"]


def test_many_small_events_are_bounded_too():
    queue = HoldQueue(DOWNSTREAM, 4 * 1024 * 1024)
    count = 0
    while queue.add(entry("x", "", "k")):
        count += 1
    assert count < 5000
    queue.clear()
    assert queue.add(entry("x", "", "k"))


class Counts(Plugin[None, list]):
    """Holds what says so, and remembers all it was asked about."""

    @on_client("response.create", "conversation.item.create")
    def up(self, session, event):
        session.state.append(event.data["n"])
        key, n = event.data.get("hold"), event.data["n"]
        return Hold(key, event.replace({"type": event.type, "n": -n})) if key else None


async def test_a_stage_is_asked_once_and_when_an_event_comes():
    async with ChainHarness({"c": Counts}) as chain:
        for n in (1, 2):
            await chain.client.send({"type": "response.create", "n": n, "hold": str(n)})
        await chain.client.send({"type": "conversation.item.create", "n": 3})
        assert chain.state("c") == [1, 2, 3]
        assert chain.upstream.payloads == []
        view = chain.session.view("c")
        assert (view.holds("1"), view.holds("3")) == (True, False)
        view.release("2")
        view.release("1")
        await chain.settle()
        # what was given to Hold goes on in place of what came
        assert [event["n"] for event in chain.upstream.take()] == [-1, -2, 3]
        assert chain.state("c") == [1, 2, 3]
        chain.check_fates()


async def test_of_several_events_made_of_one_only_those_wait_that_must():
    class Splits(Plugin[None, None]):
        @on_client("response.create", "unknown.split")
        def up(self, session, event):
            if event.type == "response.create":
                return Hold("k")
            return [Event({"type": kind}) for kind in ("response.cancel", "conversation.item.create")]

    async with ChainHarness({"s": Splits}) as chain:
        await chain.client.send({"type": "response.create"})
        await chain.client.send({"type": "unknown.split"})
        assert chain.upstream.take_types() == ["response.cancel"]
        chain.session.view("s").release("k")
        await chain.settle()
        assert chain.upstream.take_types() == ["response.create", "conversation.item.create"]
        chain.check_fates()


async def test_what_is_put_back_goes_again_as_it_went_and_is_judged_behind_its_stage_again():
    async with ChainHarness({"asks": Passive, "back": Passive, "c": Counts}) as chain:
        view = chain.session.view("back")
        chain.session.view("asks").send_upstream(Event({"type": "response.create", "n": 1}))
        await chain.settle()
        (first,) = chain.upstream.take()
        refusal = {"code": "conversation_already_has_active_response", "event_id": first["event_id"]}
        await chain.upstream.send({"type": "error", "error": refusal})
        assert view.put_back(Event(first, origin="asks"), "k")
        await chain.client.send({"type": "conversation.item.create", "n": 2})
        assert chain.upstream.payloads == []
        view.release("k")
        await chain.settle()
        again, item = chain.upstream.take()
        assert (again, item["n"]) == (first, 2)
        assert chain.state("c") == [1, 1, 2]
        # its answer is still the stage's, not the client's
        response = {"id": "r", "metadata": again["response"]["metadata"]}
        await chain.upstream.send({"type": "response.created", "event_id": "e", "response": response})
        await chain.upstream.send({"type": "response.done", "event_id": "e", "response": response})
        assert chain.client.take() == []
        chain.check_fates()


async def test_what_does_not_fit_is_not_put_back():
    async with ChainHarness({"h": Holds}, limits=SessionLimits(hold_bytes=3000)) as chain:
        view = chain.session.view("h")
        await chain.client.send({"type": "response.create", "hold": "k"})
        assert view.put_back(Event({"type": "response.create"}), "k")
        assert not view.put_back(Event({"type": "response.create"}), "k")
        chain.check_fates()


@pytest.mark.parametrize("silent", [True, False])
async def test_a_silent_response_out_of_band_passes_a_held_create(silent):
    create = {"conversation": "none", "output_modalities": ["text" if silent else "audio"]}
    async with ChainHarness({"h": Holds}) as chain:
        await chain.client.send({"type": "response.create", "hold": "k"})
        await chain.client.send({"type": "response.create", "response": create})
        assert chain.upstream.take_types() == (["response.create"] if silent else [])


async def test_a_lent_id_is_never_shown_to_the_client():
    async with ChainHarness({"h": Passive}) as chain:
        lent = chain.session.view("h").lend_id()
        await chain.upstream.send({"type": "error", "error": {"code": "invalid_value", "event_id": lent}})
        (error,) = chain.client.take()
        assert error["error"] == {"code": "invalid_value", "event_id": None}
