"""Names that two have, speech without an end, and answers that no tool should give."""

from typing import Any

import msgspec
import pytest
import trio

from rtpipe import facts
from rtpipe_tool_dispatcher import Config
from rtpipe_tool_dispatcher.announcing import Announcing
from rtpipe_tool_dispatcher.arguments import Schemas
from rtpipe_tool_dispatcher.state import RUNS_AT_ONCE
from rtpipe_tool_dispatcher.voice import SPEECH_S

# --- names that two have


async def test_a_name_the_client_has_declared_once_is_the_clients_to_the_end(
    talk: Any, offer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer.answers("clock", "ours")
    offer.answers("weather")
    async with talk() as talking:
        theirs = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
        await talking.client("session.update", session={"type": "realtime", "tools": [theirs]})
        await talking.client("session.update", session={"type": "realtime", "tools": []})
        # Announced again it would be called, and answered by nobody.
        tools = [event["session"].get("tools") for event in talking.sent()]
        assert [[tool["name"] for tool in each] for each in tools] == [["clock", "weather"], ["weather"]]
        assert "tool 'clock': the client declares one of this name" in caplog.text


async def test_a_tool_that_comes_with_a_create_replaces_ours_of_the_same_name(talk: Any, offer: Any) -> None:
    offer.answers("clock", "ours")
    async with talk() as talking:
        await talking.upstream("session.created", session={"type": "realtime", "tools": []})
        theirs = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
        await talking.client("response.create", response={"tools": [theirs]})
        await talking.chain.settle()
        create, update = talking.sent()
        assert (create["type"], update["session"]["tools"]) == ("response.create", [])
        await talking.calls(("clock", {}))
        assert "response.output_item.done" in talking.chain.client.take_types()
        assert (talking.sent(), offer.called) == ([], [])


def test_a_name_that_two_stages_offer_is_warned_of(tool: Any) -> None:
    assert Announcing(Config(), Schemas()).complaints([tool("clock"), tool("clock")]) == [
        "tool 'clock' is offered twice: the first stage in the chain has it"
    ]


# --- speech that never ends


@pytest.mark.parametrize("end", ["input_audio_buffer.cleared", "input_audio_buffer.committed", None])
async def test_speech_whose_end_is_never_told_does_not_silence_us_for_ever(
    talk: Any, offer: Any, end: str | None, autojump_clock: Any
) -> None:
    offer.answers("clock")
    async with talk() as talking:
        await talking.upstream("input_audio_buffer.speech_started", item_id="u")
        await talking.calls(("clock", {}))
        await talking.outputs()
        await trio.sleep(SPEECH_S - 1)
        assert talking.sent() == []
        if end is not None:
            await talking.upstream(end, item_id="u")
        await trio.sleep(1.5)
        assert [event["type"] for event in talking.sent()] == ["response.create"]


# --- answers and names that are odd


@pytest.mark.parametrize(
    "answer",
    ["\ud800", "[" * 100_000, "[" * 900 + "]" * 900, "9" * 5000, "1e999", "a\x00\x1b[31m", '{"status":7}'],
    ids=lambda answer: ascii(answer[:9]),
)
async def test_whatever_a_tool_answers_there_is_an_envelope(talk: Any, offer: Any, answer: str) -> None:
    offer.answers("odd", answer)
    async with talk(max_result_chars=600) as talking:
        await talking.calls(("odd", {}))
        output = talking.sent()[0]["item"]["output"]
        assert msgspec.json.decode(output)["status"] == "success"
        assert len(output) <= 600
        assert output.isprintable()


@pytest.mark.parametrize("inner", ['{"status":"error","error":"x","retry":"no"}', '{"status":"success"}'])
async def test_an_envelope_in_an_envelope_is_a_result(talk: Any, offer: Any, inner: str) -> None:
    answer = f'{{"status":"success","result":{inner}}}'
    offer.answers("odd", answer)
    async with talk() as talking:
        await talking.calls(("odd", {}))
        assert talking.sent()[0]["item"]["output"] == answer
        assert talking.statuses() == ["ok"]


@pytest.mark.parametrize("name", [None, 7, ["a"], {"a": 1}, "", "x" * 10_000, "rm -rf /\x1b[31m"])
async def test_a_name_that_no_function_has_is_an_invented_one(talk: Any, offer: Any, name: Any) -> None:
    offer.answers("clock")
    async with talk() as talking:
        assert (await talking.answer(name))["error"].startswith("There is no such function.")
        assert talking.statuses() == ["invented"]


async def test_how_long_the_model_waited_is_a_fact(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("clock", after_s=3)
    offer.answers("hang", after_s=float("inf"))
    async with talk() as talking:
        await talking.calls(("clock", {}), ("hang", {}), ("clock", {}), ("zzz", {}))
        await trio.sleep(6)
        found = [fact for fact in talking.chain.facts if isinstance(fact, facts.ToolCalled)]
        took = sorted((fact.status, fact.name, round(fact.duration_s, 3)) for fact in found)
        assert took == [
            ("invented", "", 0),
            ("ok", "clock", 3),
            ("repeat", "clock", 3),
            ("timeout", "hang", 5),
        ]
        assert {fact.stage for fact in found} == {"tool-dispatcher"}


async def test_no_more_calls_run_at_once_than_a_session_may_have(
    talk: Any, offer: Any, tool: Any, autojump_clock: Any
) -> None:
    offer.answers(tool("slow", "n"), after_s=3)
    async with talk() as talking:
        await talking.calls(*[("slow", {"n": str(number)}) for number in range(RUNS_AT_ONCE + 900)])
        await trio.sleep(4)
        answers = (await talking.outputs()).values()
        assert len(offer.called) == RUNS_AT_ONCE
        refused = [each for each in answers if each["status"] == "error"]
        assert len(refused) == 900
        assert {each["retry"] for each in refused} == {"later"}
        assert talking.statuses().count("busy") == 900
        assert (await talking.answer("slow", {"n": "x"}, wait_s=3.1))["status"] == "success"
