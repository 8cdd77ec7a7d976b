"""What the model is told: envelopes, arguments, failures, repeats, time limits, masks."""

import logging
from typing import Any

import msgspec
import pytest
import trio

from rtpipe import HookFailed, facts, tool_error

SQL = "SELECT secret FROM users WHERE host='db-7.internal'"


# --- envelopes


@pytest.mark.parametrize(
    ("answer", "result"),
    [("noon", "noon"), ('{"hour": 12}', {"hour": 12}), ("[1, 2]", [1, 2]), ("", ""), ("null", None)],
)
async def test_every_answer_gets_an_envelope(talk: Any, offer: Any, answer: str, result: Any) -> None:
    offer.answers("clock", answer)
    async with talk() as talking:
        assert await talking.answer("clock") == {"status": "success", "result": result}


@pytest.mark.parametrize(
    "answer",
    [
        '{"status":"success", "result":7, "more":1}',
        '{"status":"error",  "error":"closed today","retry":"no"}',
    ],
)
async def test_an_envelope_is_left_to_the_byte(talk: Any, offer: Any, answer: str) -> None:
    offer.answers("clock", answer)
    async with talk() as talking:
        await talking.calls(("clock", {}))
        assert talking.sent()[0]["item"]["output"] == answer


@pytest.mark.parametrize("error", [RuntimeError(SQL), SystemExit(SQL), HookFailed("a", "b", SQL)], ids=repr)
async def test_what_a_tool_raises_reaches_the_log_and_not_the_model(
    talk: Any, offer: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    offer.raises("query", error)
    async with talk(failure_message="It is broken.") as talking:
        await talking.calls(("query", {}))
        (output, _) = talking.sent()
        envelope = msgspec.json.decode(output["item"]["output"])
        failure_id = envelope.pop("id")
        assert envelope == {"status": "error", "error": "It is broken.", "retry": "now"}
        (line,) = [record.getMessage() for record in caplog.records if failure_id in record.getMessage()]
        assert "SELECT secret" in line
        assert "call_1_0" in line
        assert talking.statuses() == ["error"]


async def test_a_tool_that_nobody_answers_is_a_failure(talk: Any, offer: Any, tool: Any) -> None:
    offer.tools["orphan"] = tool("orphan")
    async with talk() as talking:
        assert (await talking.answer("orphan"))["status"] == "error"


# --- sizes


async def test_a_long_list_comes_in_pages(talk: Any, offer: Any) -> None:
    items = [{"order": number, "text": "x" * 40} for number in range(100)]
    offer.answers("orders", msgspec.json.encode(items).decode())
    async with talk(max_result_chars=2000, repeat_window_s=0) as talking:
        got = []
        page, arguments = 1, {}
        while True:
            await talking.calls(("orders", arguments))
            output = talking.sent()[0]["item"]["output"]
            assert len(output) <= 2000
            envelope = msgspec.json.decode(output)
            got += envelope["result"]
            assert (envelope["total"], envelope["last"]) == (100, len(got))
            if "truncated" not in envelope:
                break
            page += 1
            assert f'call orders again with the same arguments and "page": {page}' in envelope["next"]
            arguments = {"page": page}
        assert got == items
        assert len(offer.called) == 1
        assert talking.statuses()[1:] == ["page"] * (page - 1)
        last = await talking.answer("orders", {"page": 99})
        assert last["error"] == f"There is no page 99: the last one is {page}."


async def test_a_tool_with_pages_of_its_own_keeps_its_argument(talk: Any, offer: Any, tool: Any) -> None:
    parameters = {"type": "object", "properties": {"page": {"type": "integer"}}}
    offer.answers(tool("orders", parameters=parameters), msgspec.json.encode(["y" * 90] * 50).decode())
    async with talk(max_result_chars=1000) as talking:
        envelope = await talking.answer("orders", {"page": 2})
        assert offer.called == [("orders", '{"page":2}')]
        assert envelope["next"] == "For the others call again with arguments that ask for less."


@pytest.mark.parametrize(
    "answer", ["z" * 5000, '"\\u0001' + "é" * 5000 + '"', '{"a": "' + "b" * 5000 + '"}', "\x01" * 5000]
)
async def test_a_long_text_is_cut_and_says_so(talk: Any, offer: Any, answer: str) -> None:
    offer.answers("story", answer)
    async with talk(max_result_chars=1000) as talking:
        await talking.calls(("story", {}))
        output = talking.sent()[0]["item"]["output"]
        envelope = msgspec.json.decode(output)
        assert len(output) <= 1000
        assert envelope["truncated"] is True
        assert len(envelope["result"]) == envelope["shown_chars"] < envelope["total_chars"]


async def test_a_long_error_is_cut(talk: Any, offer: Any) -> None:
    offer.answers("story", tool_error("e" * 5000))
    async with talk(max_result_chars=1000) as talking:
        assert 500 < len((await talking.answer("story"))["error"]) < 1000


# --- arguments


async def test_the_model_is_told_which_argument_to_ask_for_again(talk: Any, offer: Any, tool: Any) -> None:
    parameters = {
        "type": "object",
        "properties": {
            "date": {"type": "string", "pattern": "^[0-9-]+$"},
            "guest": {"type": "object", "required": ["name"]},
        },
        "required": ["date"],
        "additionalProperties": False,
    }
    offer.answers(tool("book", parameters=parameters))
    async with talk() as talking:
        missing = await talking.answer("book", {})
        assert missing == {
            "status": "error",
            "error": 'The argument "date" is missing: ask the caller for it, then call again.',
            "retry": "now",
        }
        wrong = await talking.answer("book", {"date": "tomorrow"})
        assert 'The argument "date" does not fit, it does not match' in wrong["error"]
        assert "tomorrow" not in wrong["error"]
        deep = await talking.answer("book", {"date": "1", "guest": {}})
        assert '"guest.name" is missing' in deep["error"]
        extra = await talking.answer("book", {"date": "1", "time": "x"})
        assert extra["error"] == 'The function does not take "time": call again without.'
        for text in ("[1]", "{", "7"):
            assert "not a JSON object" in (await talking.answer("book", text))["error"]
        assert offer.called == []
        assert set(talking.statuses()) == {"invalid"}
        assert (await talking.answer("book", {"date": "2026-12-01"}))["status"] == "success"


async def test_no_arguments_and_no_schema_are_fine(talk: Any, offer: Any, tool: Any) -> None:
    offer.answers(tool("clock", parameters={}))
    async with talk() as talking:
        assert (await talking.answer("clock", ""))["status"] == "success"
        assert (await talking.answer("clock", {"anything": 1}))["status"] == "success"


async def test_a_schema_makes_nobody_fetch_anything(talk: Any, offer: Any, tool: Any) -> None:
    offer.answers(tool("spy", parameters={"$ref": "http://127.0.0.1:1/schema"}))
    async with talk() as talking:
        assert talking.state.tools == {}


# --- confirmation


async def test_a_tool_that_wants_it_runs_only_when_the_caller_has_had_a_turn(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("transfer", "to"))
    async with talk(tools={"transfer": {"confirm": True}}, repeat_window_s=0) as talking:
        asked = await talking.answer("transfer", {"to": "Ann"})
        assert asked["status"] == "error"
        assert 'Ask the caller to confirm, reading this back: {"to":"Ann"}' in asked["error"]
        # the model confirms to itself
        assert "confirm" in (await talking.answer("transfer", {"to": "Ann"}))["error"]
        await talking.turn()
        assert "confirm" in (await talking.answer("transfer", {"to": "Anna"}))["error"]
        assert offer.called == []
        assert (await talking.answer("transfer", '{ "to" : "Ann" }'))["status"] == "success"
        # once
        assert "confirm" in (await talking.answer("transfer", {"to": "Ann"}))["error"]
        await talking.client(
            "conversation.item.create", item={"type": "message", "role": "user", "content": []}
        )
        await trio.sleep(121)
        assert "confirm" in (await talking.answer("transfer", {"to": "Ann"}))["error"]
        assert len(offer.called) == 1
        assert talking.statuses().count("unconfirmed") == 5


# --- repeats


async def test_the_same_call_three_times_runs_once(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("order", "what", "where"), "7 pizzas", after_s=2)
    async with talk() as talking:
        first, second = {"what": "pizza", "where": "here"}, '{"where":"here", "what":"pizza"}'
        await talking.calls(("order", first), ("order", second))
        await trio.sleep(2.5)
        assert [each["result"] for each in (await talking.outputs()).values()] == ["7 pizzas"] * 2
        assert (await talking.answer("order", first))["result"] == "7 pizzas"
        assert len(offer.called) == 1
        assert talking.statuses() == ["ok", "repeat", "repeat"] or talking.statuses() == [
            "repeat",
            "ok",
            "repeat",
        ]
        await trio.sleep(5.1)
        await talking.answer("order", first, wait_s=2.1)
        assert len(offer.called) == 2


async def test_the_window_of_repeats_is_the_operators(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("order")
    async with talk(repeat_window_s=20) as talking:
        await talking.answer("order")
        await trio.sleep(19)
        await talking.answer("order")
        assert len(offer.called) == 1
        await trio.sleep(2)
        await talking.answer("order")
        assert len(offer.called) == 2


async def test_a_result_is_cached_by_opt_in(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("hours")
    async with talk(tools={"hours": {"cache_ttl_s": 60}}) as talking:
        await talking.answer("hours")
        await trio.sleep(30)
        await talking.answer("hours")
        await trio.sleep(30)
        await talking.answer("hours")
        assert talking.statuses() == ["ok", "cached", "ok"]


async def test_retry_is_now_then_no_and_later_after_an_outage(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.raises(tool("query", "n"), RuntimeError(SQL))
    async with talk() as talking:
        assert (await talking.answer("query", {"n": "1"}))["retry"] == "now"
        assert (await talking.answer("query", {"n": "1"}))["retry"] == "no"
        assert len(offer.called) == 2
        # told not to: a third one does not even run
        assert (await talking.answer("query", {"n": "1"}))["retry"] == "no"
        assert len(offer.called) == 2
        assert (await talking.answer("query", {"n": "2"}))["retry"] == "now"
        await trio.sleep(10)
        assert (await talking.answer("query", {"n": "3"}))["retry"] == "later"


async def test_an_equal_call_in_flight_that_fails_is_no_reason_to_try_again(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    async def fail(_: Any) -> str:
        await trio.sleep(1)
        raise RuntimeError(SQL)

    offer.answers("query")
    offer.functions["query"] = fail
    async with talk() as talking:
        await talking.calls(("query", {}), ("query", {}))
        await trio.sleep(2)
        assert sorted(each["retry"] for each in (await talking.outputs()).values()) == ["no", "now"]


# --- the breaker


async def test_a_tool_that_keeps_failing_is_left_alone_and_tried_again(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.raises(tool("query", "n"), RuntimeError(SQL))
    async with talk(breaker_failures=3, breaker_open_s=20) as talking:
        for number in range(5):
            envelope = await talking.answer("query", {"n": str(number)})
        assert (len(offer.called), envelope["retry"]) == (3, "later")
        assert talking.statuses() == ["error"] * 3 + ["breaker"] * 2
        await trio.sleep(20)
        await talking.answer("query", {"n": "a"})  # the one that is tried
        await talking.answer("query", {"n": "b"})
        assert len(offer.called) == 4
        offer.answers(tool("query", "n"))
        await trio.sleep(20)
        assert (await talking.answer("query", {"n": "c"}))["status"] == "success"
        changes = [(f.state, f.failures) for f in talking.chain.facts if isinstance(f, facts.BreakerChanged)]
        assert changes == [("open", 3), ("open", 4), ("closed", 0)]


async def test_what_a_tool_says_itself_is_no_outage_unless_it_says_later(
    talk: Any, offer: Any, tool: Any
) -> None:
    offer.answers(tool("query", "n"), tool_error("No such customer."))
    async with talk(breaker_failures=2) as talking:
        for number in range(4):
            await talking.answer("query", {"n": str(number)})
        assert len(offer.called) == 4
        offer.answers(tool("query", "n"), tool_error("We are closed.", "later"))
        for number in range(4):
            await talking.answer("query", {"n": f"x{number}"})
        assert len(offer.called) == 6


# --- time


async def test_a_tool_that_never_answers_is_answered_for(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("hang", after_s=float("inf"))
    async with talk(timeout_message="Still nothing.") as talking:
        began = trio.current_time()
        await talking.calls(("hang", {}))
        await trio.sleep(4.9)
        assert talking.sent() == []
        await trio.sleep(0.2)
        output, create = talking.sent()
        assert msgspec.json.decode(output["item"]["output"]) == {
            "status": "error",
            "error": "Still nothing.",
            "retry": "now",
        }
        assert create["type"] == "response.create"
        assert talking.statuses() == ["timeout"]
        assert offer.cancelled == []
    # It may not be cancelled, so it is left to its own end; but the end of the process does not wait for it.
    assert trio.current_time() - began < 11


async def test_what_may_not_be_cancelled_is_given_up_in_the_end(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("hang", after_s=float("inf"))
    async with talk(late_limit_s=20) as talking:
        await talking.answer("hang", wait_s=5.1)
        await trio.sleep(14)
        assert offer.cancelled == []
        await trio.sleep(1)
        assert offer.cancelled == ["hang"]
        assert talking.statuses() == ["timeout", "late-dropped"]


async def test_the_limit_is_the_tools_and_the_operator_may_change_it(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("a", timeout_s=1.0), after_s=3)
    offer.answers(tool("b", timeout_s=1.0), after_s=3)
    async with talk(tools={"b": {"timeout_s": 4.0}}) as talking:
        await talking.calls(("a", {}), ("b", {}))
        await trio.sleep(3.5)
        assert [each["status"] for each in (await talking.outputs()).values()] == ["error", "success"]


async def test_a_tool_that_allows_it_is_cancelled_at_its_limit(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("hang", cancellable=True), after_s=9)
    offer.answers(tool("stay"), after_s=9)
    async with talk() as talking:
        await talking.calls(("hang", {}), ("stay", {}))
        await trio.sleep(5.5)
        assert offer.cancelled == ["hang"]


async def test_a_late_answer_is_dropped_or_offered_once(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("dropped"), "x", after_s=7)
    offer.answers(tool("offered", cancellable=True), "y", after_s=7)
    async with talk(tools={"offered": {"late": "offer"}}) as talking:
        await talking.calls(("dropped", {}), ("offered", {}))
        await trio.sleep(6)
        assert len(await talking.outputs()) == 2
        await talking.begins("apology")
        await talking.ends("apology")
        await trio.sleep(20)
        message, create = talking.sent()
        assert message["item"]["role"] == "system"
        assert 'function offered: {"status":"success","result":"y"}' in message["item"]["content"][0]["text"]
        assert create["type"] == "response.create"
        assert sorted(talking.statuses()[2:]) == ["late-dropped", "late-offered"]


# --- barge-in and the end


@pytest.mark.parametrize("by", ["speech", "client", "response"])
async def test_going_on_cancels_what_may_be_cancelled(
    talk: Any, offer: Any, tool: Any, by: str, autojump_clock: Any
) -> None:
    offer.answers("lookup", after_s=3)
    offer.answers("book", after_s=3)
    async with talk(tools={"lookup": {"cancellable": True}}) as talking:
        lookup, book = await talking.calls(("lookup", {}), ("book", {}), done=by != "response")
        if by == "speech":
            await talking.turn()
        elif by == "client":
            await talking.client("response.cancel")
        else:
            await talking.ends("resp_1", "cancelled")
        assert offer.cancelled == ["lookup"]
        assert (await talking.outputs())[lookup]["error"] == "Cancelled: the caller went on speaking."
        await trio.sleep(3.1)
        assert (await talking.outputs())[book]["status"] == "success"
        assert sorted(talking.statuses()) == ["cancelled", "ok"]


async def test_nobody_is_asked_to_speak_of_what_was_cancelled(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("lookup", cancellable=True), after_s=3)
    async with talk() as talking:
        await talking.calls(("lookup", {}))
        await talking.client("response.cancel")
        assert [event["type"] for event in talking.sent()] == ["response.cancel", "conversation.item.create"]
        await trio.sleep(30)
        assert talking.sent() == []


async def test_the_end_of_the_session_cancels_what_may_be_cancelled(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    ended = []

    async def book(_: Any) -> str:
        await trio.sleep(3)
        ended.append("book")
        return "booked"

    offer.answers(tool("lookup", cancellable=True), after_s=3)
    offer.add(tool("book"), book)
    async with talk() as talking:
        await talking.calls(("lookup", {}), ("book", {}))
    assert offer.cancelled == ["lookup"]
    assert ended == ["book"]
    assert sorted(talking.statuses()) == ["cancelled", "left"]


# --- masks


async def test_masked_fields_are_in_no_log_line_and_no_fact(
    talk: Any, offer: Any, tool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    arguments = {"to": "Ann", "card": {"number": "4111-1111", "pins": [{"pin": 9876}]}}
    parameters = {"type": "object", "properties": {"to": {"type": "string"}}}
    offer.raises(tool("pay", parameters=parameters), RuntimeError("no card 4111-1111 with 9876"))
    options = {"tools": {"pay": {"mask": ["card.number", "card.pins.pin"]}}, "record_arguments": True}
    async with talk(**options) as talking:
        await talking.answer("pay", arguments)
        (fact,) = [f for f in talking.chain.facts if isinstance(f, facts.ToolCalled)]
        assert fact.arguments == '{"to":"Ann","card":{"number":"***","pins":[{"pin":"***"}]}}'
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "no card *** with ***" in said
    assert "4111" not in said
    async with talk() as talking:
        await talking.answer("pay", arguments)
        (fact,) = [f for f in talking.chain.facts if isinstance(f, facts.ToolCalled)]
        assert fact.arguments == ""
