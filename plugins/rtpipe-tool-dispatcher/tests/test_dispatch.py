"""Which calls are answered here, and what goes up and comes down for them."""

from typing import Any

import pytest
import trio

from rtpipe import Event, Plugin, Principal, on_client
from rtpipe.testing import ChainHarness
from rtpipe_tool_dispatcher import ToolDispatcher


async def test_a_call_is_answered_and_the_client_sees_an_empty_response(talk: Any, offer: Any) -> None:
    offer.answers("clock", "noon")
    async with talk() as talking:
        chain = talking.chain
        await talking.calls(("clock", {}))
        output, create = talking.sent()
        assert output["type"] == "conversation.item.create"
        assert output["item"]["type"] == "function_call_output"
        assert output["item"]["call_id"] == "call_1_0"
        assert output["item"]["output"] == '{"status":"success","result":"noon"}'
        assert create["type"] == "response.create"
        assert chain.client.take_types() == ["response.created", "response.done"]
        # The answer is the client's to hear.
        await talking.upstream(
            "conversation.item.added", previous_item_id="item_call_1_0", item=output["item"]
        )
        await talking.begins("r2", metadata=create["response"]["metadata"])
        await talking.ends("r2")
        created, done = chain.client.take()
        assert (created["type"], done["type"]) == ("response.created", "response.done")
        assert created["response"]["metadata"] is None
        assert talking.statuses() == ["ok"]
        assert talking.sent() == []


async def test_the_output_waits_for_the_end_of_the_response_that_made_the_call(talk: Any, offer: Any) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.calls(("clock", {}), done=False)
        assert offer.called == [("clock", "{}")]
        assert talking.sent() == []
        await talking.ends("resp_1")
        assert [event["type"] for event in talking.sent()] == ["conversation.item.create", "response.create"]


async def test_nothing_but_the_finished_item_dispatches_and_that_once(talk: Any, offer: Any) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.begins("r")
        for _ in range(2):
            await talking.finished("r", "call_a", "clock", "{}")
        await talking.ends("r")
        assert list(await talking.outputs()) == ["call_a"]
        await talking.begins("r2")
        await talking.finished("r2", "call_a", "clock", "{}")
        await talking.ends("r2")
        assert await talking.outputs() == {}
        assert len(offer.called) == 1


async def test_an_interrupted_call_is_hidden_and_not_run(talk: Any, offer: Any) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.begins("r")
        await talking.finished("r", "call_a", "clock", '{"half', status="incomplete")
        await talking.ends("r", "cancelled")
        assert talking.chain.client.take_types() == ["response.created", "response.done"]
        assert (talking.sent(), offer.called) == ([], [])


async def test_ten_parallel_calls_run_together_and_are_answered_by_one_response(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("echo", "n"), after_s=3)
    async with talk() as talking:
        ids = await talking.calls(*[("echo", {"n": str(n)}) for n in range(10)])
        assert len(offer.called) == 10
        await trio.sleep(3)
        await talking.chain.settle()
        events = talking.sent()
        assert sorted(event["item"]["call_id"] for event in events[:-1]) == ids
        assert [event["type"] for event in events[10:]] == ["response.create"]


async def test_results_that_come_one_by_one_go_up_at_once_and_ask_once(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("fast", after_s=1)
    offer.answers("slow", after_s=4)
    async with talk() as talking:
        fast, slow = await talking.calls(("fast", {}), ("slow", {}))
        await trio.sleep(2)
        assert list(await talking.outputs()) == [fast]
        await trio.sleep(3)
        events = talking.sent()
        assert [event["type"] for event in events] == ["conversation.item.create", "response.create"]
        assert events[0]["item"]["call_id"] == slow


# --- whose call it is


async def test_calls_of_tools_the_client_declared_pass_untouched(talk: Any, offer: Any) -> None:
    offer.answers("clock", "ours")
    async with talk() as talking:
        theirs = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
        await talking.client("session.update", session={"type": "realtime", "tools": [theirs]})
        (update,) = talking.sent()
        assert update["session"]["tools"] == [theirs]
        await talking.calls(("clock", {}))
        assert talking.chain.client.take_types() == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        assert (talking.sent(), offer.called) == ([], [])


async def test_tools_that_come_with_a_single_create_are_the_clients(talk: Any) -> None:
    async with talk() as talking:
        await talking.client("response.create", response={"tools": [{"type": "function", "name": "once"}]})
        talking.sent()
        await talking.calls(("once", {}))
        assert "response.output_item.done" in talking.chain.client.take_types()
        assert talking.sent() == []


async def test_tools_of_a_prompt_that_is_stored_upstream_are_the_clients(talk: Any) -> None:
    async with talk() as talking:
        session = {"type": "realtime", "tools": [{"type": "function", "name": "stored"}]}
        await talking.upstream("session.created", session=session)
        await talking.calls(("stored", {}))
        assert "response.output_item.done" in talking.chain.client.take_types()


async def test_a_function_that_does_not_exist_gets_the_nearest_names(
    talk: Any, offer: Any, tool: Any
) -> None:
    offer.answers("book_table")
    offer.answers("book_taxi")
    async with talk() as talking:
        envelope = await talking.answer("book_tabel")
        assert envelope == {
            "status": "error",
            "error": "There is no such function. Did you mean book_table or book_taxi?",
            "retry": "now",
        }
        assert (await talking.answer("zzz"))["error"] == "There is no such function. None has a name like it."
        assert talking.statuses() == ["invented"] * 2
        assert {fact.name for fact in talking.chain.facts if hasattr(fact, "call_id")} == {""}


async def test_with_calls_of_the_client_in_the_same_response_only_the_client_asks(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock")
    async with talk() as talking:
        mine = {"type": "function", "name": "mine", "parameters": {}}
        await talking.client("session.update", session={"type": "realtime", "tools": [mine]})
        talking.sent()
        _, theirs = await talking.calls(("clock", {}), ("mine", {}))
        await talking.outputs()
        await trio.sleep(10)
        assert talking.sent() == []
        item = {"id": "i", "type": "function_call_output", "call_id": theirs, "output": "42"}
        await talking.client("conversation.item.create", item=item)
        await talking.client("response.create")
        await talking.begins("answer")
        await talking.ends("answer")
        await trio.sleep(60)
        assert [event["type"] for event in talking.sent()] == ["conversation.item.create", "response.create"]


async def test_a_client_that_asked_before_our_result_came_is_followed_by_one_more(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock", after_s=3)
    async with talk() as talking:
        mine = {"type": "function", "name": "mine", "parameters": {}}
        await talking.client("session.update", session={"type": "realtime", "tools": [mine]})
        talking.sent()
        _, theirs = await talking.calls(("clock", {}), ("mine", {}))
        item = {"id": "i", "type": "function_call_output", "call_id": theirs, "output": "42"}
        await talking.client("conversation.item.create", item=item)
        await talking.client("response.create")
        await talking.begins("answer")
        await talking.ends("answer")
        talking.sent()
        await trio.sleep(5)
        assert [event["type"] for event in talking.sent()] == ["conversation.item.create", "response.create"]


async def test_a_client_that_never_answers_its_call_does_not_silence_ours_for_ever(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock")
    async with talk() as talking:
        mine = {"type": "function", "name": "mine", "parameters": {}}
        await talking.client("session.update", session={"type": "realtime", "tools": [mine]})
        await talking.calls(("clock", {}), ("mine", {}))
        await talking.outputs()
        await trio.sleep(31)
        assert [event["type"] for event in talking.sent()] == ["response.create"]


# --- who asks for the answer


async def test_a_response_that_begins_with_the_results_in_sight_makes_asking_needless(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock", after_s=2)
    async with talk() as talking:
        await talking.calls(("clock", {}))
        await talking.upstream("input_audio_buffer.speech_started", item_id="u")
        await trio.sleep(3)
        assert list(await talking.outputs()) == ["call_1_0"]
        await talking.upstream("input_audio_buffer.speech_stopped", item_id="u")
        await talking.upstream("input_audio_buffer.committed", item_id="u")
        await talking.begins("by-voice")
        await talking.ends("by-voice")
        await trio.sleep(60)
        assert talking.sent() == []


async def test_never_over_the_callers_speech_but_when_nobody_asks_afterwards(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock", after_s=2)
    async with talk() as talking:
        await talking.calls(("clock", {}))
        await talking.upstream("input_audio_buffer.speech_started", item_id="u")
        await trio.sleep(30)
        assert list(await talking.outputs()) == ["call_1_0"]
        await talking.upstream("input_audio_buffer.speech_stopped", item_id="u")
        await talking.chain.settle()
        assert talking.sent() == []
        await trio.sleep(2)
        assert [event["type"] for event in talking.sent()] == ["response.create"]


async def test_a_create_that_lost_a_race_is_sent_again_after_the_winner(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.calls(("clock", {}))
        output, create = talking.sent()
        await talking.begins("by-voice")  # made before the result was there
        error = {
            "type": "invalid_request_error",
            "code": "conversation_already_has_active_response",
            "event_id": create["event_id"],
        }
        await talking.upstream("error", error=error)
        await talking.upstream("conversation.item.added", previous_item_id=None, item=output["item"])
        await trio.sleep(10)
        assert talking.sent() == []
        await talking.ends("by-voice")
        await talking.chain.settle()
        assert [event["type"] for event in talking.sent()] == ["response.create"]
        assert "error" not in talking.chain.client.take_types()


async def test_a_create_that_a_stage_refused_is_not_repeated(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.calls(("clock", {}))
        _, create = talking.sent()
        error = {"type": "invalid_request_error", "code": "no_money", "event_id": create["event_id"]}
        await talking.upstream("error", error=error)
        await trio.sleep(100)
        assert talking.sent() == []


async def test_a_choice_that_forces_calls_does_not_force_them_for_ever(talk: Any, offer: Any) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.upstream("session.created", session={"type": "realtime", "tool_choice": "required"})
        await talking.calls(("clock", {}))
        assert talking.sent()[1]["response"]["tool_choice"] == "auto"


async def test_rounds_without_the_caller_come_to_an_end(talk: Any, offer: Any, tool: Any) -> None:
    offer.answers(tool("step", "n"))
    async with talk(max_rounds=3) as talking:
        choices = []
        for number in range(3):
            await talking.calls(("step", {"n": str(number)}))
            output, create = talking.sent()
            choices.append(create["response"].get("tool_choice"))
            await talking.upstream("conversation.item.added", previous_item_id=None, item=output["item"])
            await talking.begins(f"a{number}")
            await talking.ends(f"a{number}")
        assert choices == [None, None, "none"]
        await talking.turn()
        await talking.calls(("step", {"n": "9"}))
        assert talking.state.rounds <= 1


# --- what the model may call


async def announced(talking: Any) -> list[str]:
    await talking.client("session.update", session={"type": "realtime", "instructions": "Be brief."})
    update = talking.sent()[-1]
    return [tool["name"] for tool in update["session"].get("tools", [])]


async def test_only_what_the_principal_may_use_is_announced(talk: Any, offer: Any) -> None:
    for name in ("orders_list", "orders_cancel", "weather"):
        offer.answers(name)
    caller = Principal(id="app", tools=frozenset({"orders_*"}))
    async with talk(principal=caller) as talking:
        assert list(talking.state.tools) == ["orders_list", "orders_cancel"]
        assert (await talking.answer("weather"))["status"] == "error"
        assert offer.called == []
    async with talk(principal=Principal(id="app", tools=frozenset())) as talking:
        assert talking.state.tools == {}


async def test_the_first_announcement_is_there_before_the_client_says_anything(offer: Any) -> None:
    offer.answers("clock")
    async with ChainHarness({"offer": offer.plugin(), "tool-dispatcher": ToolDispatcher}) as chain:
        (update,) = chain.upstream.take()
        (tool,) = update["session"]["tools"]
        assert tool["name"] == "clock"
        assert set(tool) == {"type", "name", "description", "parameters"}


async def test_tools_are_announced_again_when_they_change(talk: Any, offer: Any) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.upstream("session.updated", session={"type": "realtime"})
        offer.answers("weather")
        talking.chain.session.view("offer").reconfigure()
        await talking.chain.settle()
        (update,) = talking.sent()
        assert [tool["name"] for tool in update["session"]["tools"]] == ["clock", "weather"]
        assert (await talking.answer("weather"))["status"] == "success"


async def test_what_the_upstream_would_refuse_is_left_out_and_said(
    talk: Any, offer: Any, tool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer.answers("clock")
    offer.answers("two words")
    offer.answers(tool("broken", parameters={"type": "object", "properties": {"a": {"type": "nothing"}}}))
    offer.answers(tool("listing", parameters={"type": "array"}))
    async with talk() as talking:
        assert list(talking.state.tools) == ["clock"]
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "'two words' is left out: its name must be" in line]
    assert [line for line in said if "'broken' is left out: its schema is no valid JSON Schema" in line]
    assert [line for line in said if "'listing' is left out: its schema must be of type object" in line]


async def test_long_descriptions_and_missing_schemas_are_warned_of_once(
    talk: Any, offer: Any, tool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer.answers(tool("chatty", description="x" * 51, parameters={}))
    async with talk(max_description_chars=50) as talking:
        await announced(talking)
    said = [record.getMessage() for record in caplog.records if "'chatty'" in record.getMessage()]
    assert len(said) == 2
    assert "has no schema" in said[0]
    assert "a description of 51 characters" in said[1]
    caplog.clear()
    async with talk(max_description_chars=51):
        assert not [record for record in caplog.records if "description" in record.getMessage()]


async def test_a_transcription_session_gets_no_tools(offer: Any) -> None:
    offer.answers("clock")
    stages = {"offer": offer.plugin(), "tool-dispatcher": ToolDispatcher}
    async with ChainHarness(stages, session_type="transcription") as chain:
        assert chain.upstream.take() == []


# --- another upstream


async def test_after_a_new_upstream_results_are_told_as_messages(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock", "noon", after_s=3)
    async with talk() as talking:
        await talking.calls(("clock", {}))
        await talking.chain.replace_upstream()
        talking.sent()
        await trio.sleep(4)
        message, create = talking.sent()
        assert message["item"]["role"] == "system"
        assert '{"status":"success","result":"noon"}' in message["item"]["content"][0]["text"]
        assert create["type"] == "response.create"


async def test_a_result_on_its_way_is_told_once_to_the_new_upstream(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("clock", "noon")
    async with talk() as talking:
        await talking.calls(("clock", {}))
        output, create = talking.sent()
        assert output["item"]["type"] == "function_call_output"
        await talking.chain.replace_upstream()
        await trio.sleep(1)
        again = [event for event in talking.sent() if event.get("item", {}).get("type") != "function_call"]
        assert [event for event in again if event["type"] != "session.update"] == [output, create]
        await talking.upstream("conversation.item.added", previous_item_id=None, item=output["item"])
        await talking.begins("answer")
        await talking.ends("answer")
        await trio.sleep(60)
        assert talking.sent() == []


async def test_a_result_that_is_refused_is_told_as_a_message(talk: Any, offer: Any) -> None:
    offer.answers("clock", "noon")
    async with talk() as talking:
        await talking.calls(("clock", {}))
        output, _ = talking.sent()
        error = {
            "type": "invalid_request_error",
            "code": "invalid_tool_call_id",
            "event_id": output["event_id"],
        }
        await talking.upstream("error", error=error)
        (message,) = talking.sent()
        assert message["item"]["role"] == "system"
        assert "noon" in message["item"]["content"][0]["text"]


async def test_a_stage_behind_sees_the_results_as_the_dispatchers(talk: Any, offer: Any) -> None:
    seen = []

    class Watcher(Plugin[None, None]):
        @on_client("conversation.item.create", "response.create")
        def look(self, event: Event) -> None:
            seen.append((event.type, event.origin, event.audible))

    offer.answers("clock")
    async with talk(behind={"watcher": Watcher}) as talking:
        await talking.calls(("clock", {}))
        assert seen == [
            ("conversation.item.create", "tool-dispatcher", False),
            ("response.create", "tool-dispatcher", True),
        ]
