"""What holds for any chain and any events."""

from collections import deque

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import Close, Drop, Event, Hold, Plugin, Reply, on_client, on_server, reject
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM
from rtpipe.protocol.ordering import must_wait
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness

PROFILE = settings(derandomize=True, max_examples=100, deadline=None, database=None)

UP = [
    "response.create",
    "response.cancel",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "conversation.item.create",
    "unknown.up",
]
DOWN = [
    "response.created",
    "response.done",
    "error",
    "input_audio_buffer.speech_started",
    "session.updated",
    "unknown.down",
]
ACTIONS = ["pass", "async", "same", "replace", "drop", "expand", "reply", "reject", "hold", "raise", "send"]


def run(function):
    """Run a test body on a clock of its own, as hypothesis calls it many times within one test."""
    trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))


class Acts(Plugin[None, None]):
    """Does what the script of the test says next, and checks what it is given."""

    on_error = "drop"
    script: deque

    async def _act(self, session, event):
        assert event.origin != self.stage, "met its own event"
        action = self.script.popleft() if self.script else "pass"
        match action:
            case "async":
                await trio.sleep(0.05)
            case "same":
                assert event.data is not None
                return event
            case "replace":
                return event.replace({**event.data, "by": self.stage})
            case "drop":
                return Drop("dropped")
            case "expand":
                return [event, Event({"type": "unknown.more"})]
            case "reply":
                return Reply(Event({"type": "unknown.reply"}))
            case "reject":
                return reject(event, "no", "no")
            case "hold":
                return Hold(f"{len(self.script) % 2}")
            case "raise":
                raise ValueError
            case "send":
                session.send_upstream(Event({"type": "unknown.sent"}))
                session.send_downstream(Event({"type": "unknown.sent"}), whole_chain=True)
        return None

    @on_client()
    async def client(self, session, event):
        return await self._act(session, event)

    @on_server()
    async def server(self, session, event):
        return await self._act(session, event)


def acting(script):
    return type("Acts", (Acts,), {"script": deque(script)})


@PROFILE
@given(
    scripts=st.lists(st.lists(st.sampled_from(ACTIONS), max_size=8), min_size=1, max_size=4),
    sent=st.lists(st.tuples(st.booleans(), st.integers(0, len(UP) - 1)), max_size=10),
    orders=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("01"), st.booleans()), max_size=10),
)
def test_every_event_has_exactly_one_fate(scripts, sent, orders):
    async def body():
        async with ChainHarness({f"s{i}": acting(script) for i, script in enumerate(scripts)}) as chain:
            for up, index in sent:
                end, kinds = (chain.client, UP) if up else (chain.upstream, DOWN)
                await end.connection.send(b'{"type":"%s"}' % kinds[index].encode())
                await trio.sleep(0.01)
            await trio.sleep(5)
            chain.check_fates()
            for stage, key, release in orders:
                view = chain.session.view(f"s{stage % len(scripts)}")
                if release:
                    view.release(key)
                else:
                    view.drop_held(key, "no")
            await trio.sleep(5)
            chain.check_fates()
            for _ in range(30):
                await trio.sleep(40)
                chain.check_fates()
            assert chain.session.lane(UPSTREAM).waiting == 0
            assert chain.session.lane(DOWNSTREAM).waiting == 0
            assert chain.session.ending is None
            assert all(kind == "ValueError" for _, _, kind in chain.guard.failures)

    run(body)


class Holds(Plugin[None, None]):
    """Holds what the event itself says it should."""

    async def _act(self, event):
        await trio.lowlevel.checkpoint()
        if "n" not in event.data:
            return None
        plan = event.data["plan"].get(self.stage)
        if plan == "slow":
            await trio.sleep(0.03)
            return None
        return None if plan is None else Hold(plan)

    @on_client()
    async def client(self, session, event):
        return await self._act(event)

    @on_server()
    async def server(self, session, event):
        return await self._act(event)


STAGES = ["a", "b", "c"]
PLANS = st.dictionaries(st.sampled_from(STAGES), st.sampled_from(["k", "l", "slow"]), max_size=3)
ORDERS = st.tuples(
    st.sampled_from(["release", "drop", "wait"]), st.sampled_from(STAGES), st.sampled_from("kl")
)


@PROFILE
@given(
    down=st.booleans(),
    steps=st.lists(st.one_of(st.tuples(st.integers(0, len(UP) - 1), PLANS), ORDERS), max_size=24),
)
def test_what_is_held_is_never_overtaken_by_what_must_wait(down, steps):
    async def body():
        direction, kinds = (DOWNSTREAM, DOWN) if down else (UPSTREAM, UP)
        async with ChainHarness(dict.fromkeys(STAGES, Holds)) as chain:
            near, far = (chain.upstream, chain.client) if down else (chain.client, chain.upstream)
            sent = []
            for step in steps:
                if len(step) == 2:
                    kind, plan = kinds[step[0]], step[1]
                    await near.connection.send(
                        Event({"type": kind, "n": len(sent), "plan": plan, "session": {}}).payload
                    )
                    sent.append(kind)
                    continue
                what, stage, key = step
                if what == "release":
                    chain.session.view(stage).release(key)
                elif what == "drop":
                    chain.session.view(stage).drop_held(key, "no", ours=True)
                else:
                    await trio.sleep(0.02)
            for _ in range(30):
                await trio.sleep(0.2)
                for stage in STAGES:
                    for key in "kl":
                        chain.session.view(stage).release(key)
            await trio.sleep(1)
            chain.check_fates()
            assert chain.session.lane(direction).waiting == 0
            arrived = [event["n"] for event in far.take() if "n" in event]
            for place, later in enumerate(arrived):
                for earlier in arrived[place + 1 :]:
                    if earlier < later:
                        assert not must_wait(sent[later], sent[earlier], direction)

    run(body)


@PROFILE
@given(
    scripts=st.lists(
        st.lists(st.sampled_from(["pass", "async", "same", "replace"]), max_size=30), min_size=1, max_size=4
    ),
    count=st.integers(1, 12),
)
def test_order_within_a_direction_holds(scripts, count):
    async def body():
        async with ChainHarness({f"s{i}": acting(script) for i, script in enumerate(scripts)}) as chain:
            for number in range(count):
                for end in (chain.client, chain.upstream):
                    await end.connection.send(b'{"type":"unknown.x","n":%d}' % number)
            await trio.sleep(60)
            for end in (chain.client, chain.upstream):
                assert [event["n"] for event in end.take()] == list(range(count))

    run(body)


@PROFILE
@given(sizes=st.lists(st.integers(0, 3000), max_size=20))
def test_what_is_held_is_bounded(sizes):
    async def body():
        limits = SessionLimits(hold_bytes=10_000)
        async with ChainHarness({"a": Holds}, limits=limits) as chain:
            for number, size in enumerate(sizes):
                event = {
                    "type": "response.create",
                    "event_id": f"e{number}",
                    "n": number,
                    "plan": {"a": "k"},
                    "pad": "x" * size,
                }
                await chain.client.send(event)
            errors = chain.client.take()
            assert all(error["error"]["code"] == "event_queue_full" for error in errors)
            assert chain.session.lane(UPSTREAM).waiting + len(errors) == len(sizes)
            for _ in sizes:
                chain.session.view("a").release("k")
                await trio.sleep(1)
            sent = [event["n"] for event in chain.upstream.take()]
            refused = [int(error["error"]["event_id"][1:]) for error in errors]
            assert sorted(sent + refused) == list(range(len(sizes)))
            assert sent == sorted(sent)
            chain.check_fates()

    run(body)


def test_a_session_ends_once_whatever_closes_it():
    async def body():
        async with ChainHarness({"a": acting([])}) as chain:
            view = chain.session.view("a")
            view.close(4001, "first")
            view.close(4002, "second")
            await trio.sleep(2)
            assert chain.client.closing.code == 4001

    run(body)


def test_verdicts_can_close():
    class Closes(Plugin[None, None]):
        @on_client("response.create")
        def take(self, session, event):
            return Close(4009, "x" * 300)

    async def body():
        async with ChainHarness({"a": Closes}) as chain:
            outgoing = chain.client.connection._outgoing
            for kind in ("response.create", "unknown.x", "response.create"):
                outgoing.send_nowait(Event({"type": kind}).payload)
            await trio.sleep(2)
            assert chain.client.closing.code == 4009
            assert chain.upstream.payloads == []  # nothing passes behind the event that closed

    run(body)
