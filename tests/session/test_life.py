"""Opening, closing, legs that come and go, stages that fail while they do."""

import pytest
import trio

from rtpipe import Event, Plugin, Refused, facts, on_client, on_server
from rtpipe.session.session import Session
from rtpipe.testing import ChainHarness
from rtpipe.testing.harness import End
from rtpipe.transport.connection import Closing
from rtpipe.transport.memory import memory_pair

calls = []


@pytest.fixture(autouse=True)
def _forget():
    calls.clear()


class Noted(Plugin[None, list]):
    async def session_open(self, session):
        await trio.lowlevel.checkpoint()
        calls.append(f"open {self.stage}")

    async def session_close(self, session, ending):
        await trio.lowlevel.checkpoint()
        calls.append(f"close {self.stage} {ending.code} {ending.cause}")

    def client_attached(self, session):
        calls.append(f"attached {self.stage}")

    def client_detached(self, session, cause):
        calls.append(f"detached {self.stage} {cause}")

    def upstream_replaced(self, session, loss):
        calls.append(f"replaced {self.stage} {loss}")

    @on_client("count")
    def count(self, session, event):
        session.state.append(1)
        return event.replace({"type": "count", "n": len(session.state)})


class FailsToOpen(Noted):
    async def session_open(self, session):
        raise ValueError


class Refuses(Noted):
    def session_open(self, session):
        raise Refused(402, "no_money", "No money.")


class NoState:
    def __init__(self):
        raise SystemExit(1)


class StateFails(Plugin[None, NoState]):
    @on_client()
    def take(self, session, event): ...

    def fact(self, session, fact): ...

    def session_close(self, session, ending): ...


@pytest.mark.parametrize("faulty", [FailsToOpen, StateFails])
@pytest.mark.parametrize("policy", ["close", "drop", "pass"])
async def test_a_stage_that_does_not_open(faulty, policy):
    stages = {"a": Noted, "faulty": faulty, "c": Noted}
    if policy == "pass":
        async with ChainHarness(stages, on_error={"faulty": policy}) as chain:
            await chain.client.send({"type": "count"})
            assert chain.upstream.take() == [{"type": "count", "n": 1}]
            assert chain.session.ending is None
        opened, closed = ["open a", "open c"], ["close c 1000 host", "close a 1000 host"]
    else:
        with pytest.raises(Refused) as caught:
            async with ChainHarness(stages, on_error={"faulty": policy}):
                pass
        assert caught.value.status == 503
        assert "ValueError" not in caught.value.message
        opened, closed = ["open a"], ["close a 1000 host"]
    assert [c for c in calls if c.startswith("open")] == opened
    assert [c for c in calls if c.startswith("close")] == closed


async def test_a_refusal_passes_whatever_the_policy():
    with pytest.raises(Refused, match="No money"):
        async with ChainHarness({"a": Noted, "b": Refuses}, on_error={"b": "pass"}):
            pass
    assert calls == ["open a", "close a 1000 host"]


class HangsAtClose(Noted):
    async def session_close(self, session, ending):
        calls.append("hanging")
        await trio.sleep_forever()


@pytest.mark.parametrize("how", ["client", "lost", "upstream", "cut", "host"])
async def test_session_close_runs_in_reverse_whatever_ended_it(how, autojump_clock):
    async with ChainHarness({"a": Noted, "hangs": HangsAtClose, "c": Noted}) as chain:
        began = trio.current_time()
        match how:
            case "client":
                await chain.client.connection.close(1001, "bye")
            case "lost":
                chain.client.connection.abort()
            case "upstream":
                await chain.upstream.connection.close(3000, "no")
            case "cut":
                chain.upstream.connection.abort()
        await chain.settle()
    ending = {
        "client": "1001 client",
        "lost": "1001 client",
        "upstream": "3000 upstream",
        "cut": "1011 upstream",
    }
    assert calls[-3:] == [
        f"close c {ending.get(how, '1000 host')}",
        "hanging",
        f"close a {ending.get(how, '1000 host')}",
    ]
    assert trio.current_time() - began < 7


CODES = {1000: 1000, 1001: 1001, 1008: 1008, 1011: 1011, 1012: 1012, 3000: 3000, 4000: 4000}


@pytest.mark.parametrize("code", [*CODES, 1005, 1006, 1015, 999, 2000])
async def test_close_codes_both_ways_are_legal(code):
    for ours, theirs, lost in (("client", "upstream", 1001), ("upstream", "client", 1011)):
        async with ChainHarness({}) as chain:
            end = getattr(chain, ours).connection
            if code in CODES:
                await end.close(code, "why")
            else:
                # What a transport may report without a close frame having said so.
                end._end(Closing(code, "", clean=code != 1006))
            await chain.settle()
            seen = getattr(chain, theirs).closing
            expected = CODES.get(code, 1000 if (ours, code) == ("client", 1005) else lost)
            assert seen.code == expected
            if (ours, expected) == ("upstream", 1011) and code != 1011:
                assert chain.client.take_types() == ["error"]


async def test_the_client_may_go_and_come_back_to_the_same_session():
    async with ChainHarness({"a": Noted}) as chain:
        await chain.client.send({"type": "count"})
        chain.session.parking.allow()
        chain.client.connection.abort("went away")
        await chain.settle()
        assert chain.session.ending is None
        await chain.upstream.send({"type": "response.done"})
        await chain.resume_client()
        await chain.client.send({"type": "count"})
        assert [e["n"] for e in chain.upstream.take()] == [1, 2]
        old = chain.client
        await chain.resume_client()
        await chain.settle()
        assert old.closing.code == 1000
        await chain.client.send({"type": "count"})
        assert [e["n"] for e in chain.upstream.take()] == [3]
        chain.check_fates()
    told = [c for c in calls if c.split()[0] in ("attached", "detached")]
    assert told == ["attached a", "detached a 1006 went away", "attached a", "attached a"]
    changes = [(f.leg, f.change) for f in chain.facts if isinstance(f, facts.LegChanged)]
    assert changes == [
        ("upstream", "attached"),
        ("client", "attached"),
        ("client", "parked"),
        ("client", "resumed"),
        ("client", "resumed"),
    ]


class SlowDown(Plugin[None, None]):
    @on_server("slow")
    async def slow(self, session, event):
        await trio.sleep(0.1)


async def test_a_walk_in_hand_outlives_the_connection_it_came_from(autojump_clock):
    async with ChainHarness({"a": Noted, "slow": SlowDown}) as chain:
        await chain.upstream.connection.send(b'{"type":"slow"}')
        await trio.sleep(0.05)
        old = chain.upstream
        await chain.replace_upstream("nothing")
        await trio.sleep(1)
        assert chain.client.take_types() == ["slow"]
        assert old.closing.code == 1000
        await chain.client.send({"type": "x"})
        assert chain.upstream.take_types() == ["x"]
        chain.check_fates()
    assert "replaced a nothing" in calls


async def test_what_is_sent_while_no_upstream_is_there_waits_for_the_next():
    async with ChainHarness({"a": Noted}) as chain:
        chain.session.upstream.lost = lambda closing: None  # somebody else looks after it
        chain.upstream.connection.abort()
        await chain.client.send({"type": "x"})
        await chain.client.send({"type": "y"})
        chain.session.upstream.detach()
        await chain.replace_upstream()
        assert chain.upstream.take_types() == ["x", "y"]
        chain.check_fates()


class SlowOpen(Plugin[None, None]):
    async def configure(self, session, draft):
        await trio.sleep(0.1)
        draft.set("tools", ["x"])


async def test_a_dial_that_is_cancelled_or_breaks_leaves_no_connection_open(autojump_clock):
    async with ChainHarness({"a": SlowOpen}) as chain:
        for cut in (False, True):
            ours, theirs = memory_pair()
            end = End(theirs, chain.session._nursery)
            if cut:
                theirs.abort()
                with pytest.raises(Exception, match="1006"):
                    await chain.session.attach_upstream(ours)
            else:
                with trio.move_on_after(0.05):
                    await chain.session.attach_upstream(ours)
            await chain.settle()
            assert end.closing is not None


async def test_a_fast_upstream_does_not_lose_its_first_word(autojump_clock):
    async with trio.open_nursery() as nursery, ChainHarness({"a": Noted}) as chain:
        session = Session("s", chain.session.principal, "m", chain.session.chain, chain.guard, nursery)
        await session.open()
        ours, theirs = memory_pair()
        await theirs.send(b'{"type":"session.created","session":{}}')
        await session.attach_upstream(ours)
        await trio.sleep(1)
        ours, theirs = memory_pair()
        await session.attach_client(ours)
        assert await theirs.receive() == b'{"type":"session.created","session":{}}'
        await session.close()


async def test_two_sessions_on_one_chain_share_nothing_and_harm_nobody(caplog):
    class Faulty(Noted):
        @on_client("bad")
        def bad(self, session, event):
            raise SystemExit

    async with trio.open_nursery() as nursery, ChainHarness({"a": Faulty}) as chain:
        session = Session("s", chain.session.principal, "m", chain.session.chain, chain.guard, nursery)
        await session.open()
        for attach in (session.attach_upstream, session.attach_client):
            ours, theirs = memory_pair()
            await attach(ours)
        await theirs.send(b'{"type":"bad"}')
        await session.ended.wait()
        await session.close()
        await session.close()
        await chain.client.send({"type": "count"})
        assert chain.upstream.take() == [{"type": "count", "n": 1}]
        assert chain.session.ending is None
    assert calls.count("close a 1011 a") == 1


async def _fail(session):
    session.state.append(1)
    raise OSError("no disk")


@pytest.mark.parametrize("policy", ["close", "pass"])
async def test_a_background_task_that_fails(policy, caplog):
    async with ChainHarness({"a": Noted}, on_error={"a": policy}) as chain:
        view = chain.session.view("a")
        view.start_soon(_fail, view)
        view.start_soon(_fail, view)
        view.start_soon(lambda: None)
        await chain.settle()
        assert (chain.session.ending is not None) == (policy == "close")
        assert chain.guard.failures["a", "task _fail", "OSError"] == 2
        assert chain.guard.failures["a", "task <lambda>", "TypeError"] == 1
    assert caplog.text.count("no disk") == 1


async def test_a_stage_cannot_close_with_what_is_not_for_the_wire():
    async with ChainHarness({"a": Noted}) as chain:
        for code in (1005, 1006, 1015, 0, 5000, None):
            with pytest.raises(ValueError, match="wire"):
                chain.session.view("a").close(code, "")


async def test_a_slow_client_pauses_the_upstream_and_one_that_stopped_is_closed(autojump_clock):
    async with trio.open_nursery() as nursery, ChainHarness({}) as chain:
        session = Session("s", chain.session.principal, "m", chain.session.chain, chain.guard, nursery)
        await session.open()
        ours, theirs = memory_pair(4)
        await session.attach_upstream(ours)
        ours, _ = memory_pair(2, write_deadline_s=5)
        await session.attach_client(ours)
        began = trio.current_time()
        sent = 0
        with trio.move_on_after(1):
            while True:
                await theirs.send(b'{"type":"response.output_audio.delta","delta":"AAAA"}')
                sent += 1
        assert sent <= 4 + 2 + 4  # what the two pipes hold, and what one read has in hand
        await session.ended.wait()
        assert 4 < trio.current_time() - began < 7
        await session.close()
        assert (session.ending.cause, session.ending.code) == ("client", 1001)


async def test_what_was_on_its_way_is_delivered_before_the_end():
    class Says(Plugin[None, None]):
        @on_server("error")
        def last_words(self, session, event):
            session.send_downstream(Event({"type": "farewell"}))
            session.close(4001, "enough")

    async with ChainHarness({"a": Says}) as chain:
        await chain.upstream.send({"type": "error", "event_id": "x"})
        await chain.settle()
        assert chain.client.take_types() == ["error", "farewell"]
        assert chain.client.closing.code == 4001
        assert chain.upstream.closing.code == 1000


# --- the bill of what was being said ------------------------------------------------------------------------

BEGUN = {"type": "response.created", "event_id": "e1", "response": {"id": "r1"}}
OVER = {"type": "response.done", "event_id": "e2", "response": {"id": "r1", "status": "cancelled"}}


class Bills(Plugin[None, list]):
    @on_server("response.done", "response.output_audio.delta")
    def bill(self, session, event):
        calls.append(event.type)

    def session_close(self, session, ending):
        calls.append(f"close {ending.cause}")


async def test_a_client_that_is_gone_has_its_answer_cancelled_and_its_bill_heard(autojump_clock):
    async with ChainHarness({"bills": Bills}) as chain:
        await chain.client.send({"type": "response.create"})
        await chain.upstream.send(BEGUN)
        chain.upstream.take()
        chain.client.connection.abort("gone")
        began = trio.current_time()
        await chain.settle()
        (cancel,) = chain.upstream.take()
        assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "r1")
        assert trio.current_time() == began
        await trio.sleep(5)
        await chain.upstream.send({"type": "response.output_audio.delta", "event_id": "e", "delta": "AAAA"})
        await chain.upstream.send(OVER)
        assert trio.current_time() == began + 5
        assert calls == ["response.done", "close client"]
        assert chain.upstream.closing is not None


async def test_a_bill_is_waited_for_no_longer_than_ten_seconds(autojump_clock):
    async with ChainHarness({"bills": Bills}) as chain:
        await chain.upstream.send(BEGUN)
        chain.client.connection.abort("gone")
        began = trio.current_time()
        await trio.sleep(9.9)
        assert chain.upstream.closing is None
        await trio.sleep(0.2)
        assert chain.upstream.closing is not None
        assert trio.current_time() - began < 10.2
        assert calls == ["close client"]


async def test_an_answer_that_was_asked_for_and_had_not_begun_is_cancelled_when_it_does(autojump_clock):
    async with ChainHarness({"bills": Bills}) as chain:
        await chain.client.send({"type": "response.create"})
        chain.client.connection.abort("gone")
        await chain.settle()
        chain.upstream.take()
        await chain.upstream.send(BEGUN)
        assert [event["type"] for event in chain.upstream.take()] == ["response.cancel"]
        await chain.upstream.send(OVER)
        assert calls == ["response.done", "close client"]


async def test_an_upstream_that_is_lost_says_no_bill(autojump_clock):
    async with ChainHarness({"bills": Bills}) as chain:
        await chain.upstream.send(BEGUN)
        chain.client.connection.abort("gone")
        await chain.settle()
        began = trio.current_time()
        chain.upstream.connection.abort("gone too")
        await chain.settle()
        assert calls == ["close client"]
        assert trio.current_time() == began
