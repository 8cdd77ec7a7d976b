"""Meters, facts, watchers, tools: what is counted, told and asked off the path."""

import pytest
import trio

from rtpipe import HookFailed, Plugin, Refused, Tool, ToolCall, facts, watch_client, watch_server
from rtpipe.session.limits import SessionLimits
from rtpipe.testing import ChainHarness

DELTA = b'{"type":"response.output_audio.delta","delta":"%s"}'


class Sees(Plugin[None, list]):
    @watch_client("x")
    def client(self, session, event):
        session.state.append(event.type)

    @watch_server("y")
    async def server(self, session, event):
        await trio.sleep(0.1)
        session.state.append(event.type)

    def fact(self, session, fact):
        session.state.append(fact)


class Raises(Plugin[None, None]):
    @watch_client("x")
    def client(self, session, event):
        raise ValueError

    async def fact(self, session, fact):
        await trio.sleep_forever()


async def test_counts_by_direction_and_type(autojump_clock):
    async with ChainHarness({}) as chain:
        await trio.sleep(5)
        for _ in range(3):
            await chain.client.send(b'{"type":"x"}')
            await chain.upstream.send(DELTA % (b"AAAA" * 160))
            await trio.sleep(1)
        meter = chain.session.meter
        up = meter.count("upstream", "x")
        assert (up.frames, up.bytes, up.last_s - up.first_s) == (3, 36, 2)
        assert meter.count("downstream", "response.output_audio.delta").frames == 3
        assert meter.count("downstream", "x").frames == 0


async def test_playout_runs_ahead_and_stops_when_the_caller_speaks(autojump_clock):
    async with ChainHarness({"a": Sees}) as chain:
        meter = chain.session.view("a").meter
        second = DELTA % (b"AAAA" * 16_000)
        await chain.upstream.send(second)
        await chain.upstream.send(second)
        assert meter.playout_ahead_s == pytest.approx(2)
        await trio.sleep(1.5)
        assert meter.playout_ahead_s == pytest.approx(0.5)
        await chain.upstream.send(b'{"type":"input_audio_buffer.speech_started"}')
        assert meter.playout_ahead_s == 0
        await chain.upstream.send(second)
        await chain.client.send({"type": "conversation.item.truncate", "item_id": "i"})
        assert meter.playout_ahead_s == 0


async def test_a_tripwire_calls_exactly_once():
    async with ChainHarness({"a": Sees}) as chain:
        called = []
        meter = chain.session.view("a").meter
        meter.at("y", 20, lambda: called.append("second"))
        meter.at("y", 13, lambda: called.append("first"))
        for count in (0, 2, 2):
            await chain.upstream.send(b'{"type":"y"}')
            assert len(called) == count
        assert called == ["first", "second"]


@pytest.mark.parametrize("policy", ["close", "pass"])
async def test_a_tripwire_that_raises_is_the_plugins_failure(policy):
    async with ChainHarness({"a": Sees}, on_error={"a": policy}) as chain:
        chain.session.view("a").meter.at("y", 1, lambda: 1 / 0)
        with pytest.raises(TypeError):
            chain.session.view("a").meter.at("y", "1", print)
        await chain.upstream.send(b'{"type":"y"}')
        assert chain.guard.failures == {("a", "meter.at", "ZeroDivisionError"): 1}
        assert (chain.session.ending is not None) == (policy == "close")


async def test_types_a_client_makes_up_do_not_fill_the_memory():
    async with ChainHarness({}) as chain:
        for number in range(400):
            await chain.client.connection.send(b'{"type":"t%d"}' % number)
        await chain.settle()
        meter = chain.session.meter
        assert len(meter._counts) < 300
        assert meter.count("upstream", "").frames > 100


async def test_watchers_are_off_the_path_and_bounded(autojump_clock):
    limits = SessionLimits(watch_events=10)
    async with ChainHarness({"a": Sees}, limits=limits) as chain:
        await trio.sleep(1)
        chain.state("a").clear()
        for _ in range(30):
            await chain.upstream.send(b'{"type":"y"}')
        assert len(chain.client.take()) == 30  # nobody waited
        await trio.sleep(10)
        watched = chain.state("a").count("y")
        assert watched + chain.session.watchers.missed == 30
        assert 10 <= watched <= 11


async def test_watchers_and_observers_that_fail_harm_nobody(autojump_clock, caplog):
    async with ChainHarness({"a": Sees, "r": Raises}) as chain:

        def observer(fact):
            raise RuntimeError("of the host")

        chain.session._observer = observer
        await chain.client.send(b'{"type":"x"}')
        chain.session.view("a").record(facts.Alerted(stage="a", name="n", message="m", labels={}))
        await trio.sleep(5)
        assert "x" in chain.state("a")
        assert chain.upstream.take_types() == ["x"]
        assert chain.session.ending is None
        assert chain.guard.failures["r", "client", "ValueError"] == 1


async def test_fact_hooks_see_what_became_of_things(autojump_clock):
    async with ChainHarness({"a": Sees}) as chain:
        state = chain.state("a")
        await chain.upstream.send({"type": "response.created", "response": {"id": "r"}})
        await trio.sleep(2)
        usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        done = {"id": "r", "status": "cancelled", "usage": usage}
        await chain.upstream.send({"type": "response.done", "response": done})
        await chain.upstream.send({"type": "input_audio_buffer.committed", "item_id": "i"})
        await chain.settle()
        session_id = chain.session.id
    seen = {type(fact).__name__: fact for fact in state if isinstance(fact, facts.Fact)}
    assert set(seen) == {"SessionOpened", "LegChanged", "ResponseEnded", "TurnStarted", "SessionClosed"}
    assert {fact.session for fact in seen.values()} == {session_id}
    ended = seen["ResponseEnded"]
    assert (ended.response_id, ended.status, ended.origin) == ("r", "cancelled", "upstream")
    assert (ended.duration_s, ended.usage["total"]) == (pytest.approx(2), 7)
    assert (seen["SessionClosed"].code, seen["SessionClosed"].cause) == (1000, "host")


async def test_a_refused_create_of_the_clients_is_not_taken_for_the_next_response(autojump_clock):
    async with ChainHarness({}) as chain:
        await chain.client.send({"type": "response.create"})
        error = {"code": "conversation_already_has_active_response", "message": "", "event_id": None}
        with trio.move_on_after(1) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.session.upstream_edge.quiet.come)
                await chain.upstream.send({"type": "error", "error": error})
        assert not scope.cancelled_caught  # nobody waits for an answer that will not come
        for kind in ("response.created", "response.done"):
            await chain.upstream.send({"type": kind, "response": {"id": "by voice"}})
        (ended,) = (f for f in chain.facts if isinstance(f, facts.ResponseEnded))
        assert ended.origin == "upstream"


class Answers(Plugin[None, None]):
    answer = None

    async def tools(self, session):
        return [Tool(name=self.stage, description="", parameters={})]

    async def tool_call(self, session, call):
        if isinstance(self.answer, Exception):
            raise self.answer
        await trio.sleep(self.answer if isinstance(self.answer, int) else 0)
        return self.answer


def answers(answer):
    return type("Answers", (Answers,), {"answer": answer})


CALL = ToolCall(call_id="c", name="f", arguments="{}")


async def test_tools_in_chain_order_and_the_first_answer_wins(autojump_clock):
    stages = {"a": answers(None), "b": answers("b's"), "c": answers("c's")}
    async with ChainHarness(stages) as chain:
        view = chain.session.view("a")
        assert [tool.name for tool in await view.offered_tools()] == ["a", "b", "c"]
        assert await view.answer_tool(CALL, 1) == "b's"


@pytest.mark.parametrize("answer", [100, ValueError(), Refused(403, "no", "no"), 0])
async def test_a_tool_that_fails_is_named(answer, autojump_clock):
    async with ChainHarness({"a": Sees, "b": answers(answer)}) as chain:
        began = trio.current_time()
        with pytest.raises(HookFailed, match=r"b\.tool_call"):
            await chain.session.view("a").answer_tool(CALL, 30)
        assert trio.current_time() - began <= 30
        assert chain.session.ending is None


@pytest.mark.parametrize("offered", [None, 7, [1], "xy"])
async def test_tools_that_are_none(offered):
    class Offers(Plugin[None, None]):
        def tools(self, session):
            return offered

    async with ChainHarness({"a": answers(None), "o": Offers}, on_error={"o": "pass"}) as chain:
        assert len(await chain.session.view("a").offered_tools()) == 1
        assert chain.guard.failures == {("o", "tools", "nonsense"): 1}
