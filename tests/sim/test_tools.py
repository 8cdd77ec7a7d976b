from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.sim.kit import connected, kinds, of_kind, tool

TOOLS = [tool("dice", sides={"type": "integer"}), tool("clock")]


async def test_a_call_in_documented_order(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(tools=TOOLS)
        await client.user('please call dice {"sides": 20, "note": "as written"} for me')
        events = await client.respond()
        assert kinds(events) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        arguments = '{"sides": 20, "note": "as written"}'
        deltas = of_kind(events, "response.function_call_arguments.delta")
        assert len(deltas) > 1
        assert "".join(event["delta"] for event in deltas) == arguments
        (done,) = of_kind(events, "response.function_call_arguments.done")
        assert (done["name"], done["arguments"]) == ("dice", arguments)
        response = events[-1]["response"]
        assert response["status"] == "completed"
        (item,) = response["output"]
        assert (item["name"], item["arguments"], item["call_id"]) == ("dice", arguments, done["call_id"])


async def test_several_calls_and_their_outputs(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(tools=TOOLS)
        response = await client.say("call dice, then call clock; call dice {}")
        assert [item["name"] for item in response["output"]] == ["dice", "clock", "dice"]
        assert [item["arguments"] for item in response["output"]] == ['{"sides":1}', "{}", "{}"]
        for item, output in zip(response["output"], ("4", "noon", "6"), strict=True):
            await client.item({"type": "function_call_output", "call_id": item["call_id"], "output": output})
        (answer,) = (await client.respond())[-1]["response"]["output"]
        assert answer["content"][0]["transcript"] == "The tool answered: 4; noon; 6"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("call mother", []),
        ("call! mother", ["mother"]),
        ("recall dice", []),
        ("call  clock.", ["clock"]),
        ("call clock {broken", ["clock"]),
    ],
)
async def test_what_is_a_call(autojump_clock: Any, text: str, names: list[str]) -> None:
    async with connected() as client:
        await client.update(tools=TOOLS)
        output = (await client.say(text))["output"]
        assert [item["name"] for item in output if item["type"] == "function_call"] == names


@pytest.mark.parametrize(
    ("choice", "text", "names"),
    [
        ("none", "call dice", []),
        ("auto", "hello", []),
        ("required", "hello", ["dice"]),
        ("required", "call clock", ["clock"]),
        ({"type": "function", "name": "clock"}, "hello", ["clock"]),
        ({"type": "mcp", "server_label": "s"}, "hello", []),
    ],
)
async def test_tool_choice(autojump_clock: Any, choice: Any, text: str, names: list[str]) -> None:
    async with connected() as client:
        output = (await client.say(text, tools=TOOLS, tool_choice=choice))["output"]
        assert [item["name"] for item in output if item["type"] == "function_call"] == names


async def test_arguments_are_made_from_the_schema(autojump_clock: Any) -> None:
    address = {"type": "object", "properties": {"zip": {"type": "string"}}, "required": ["zip"]}
    looped: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        looped = {"type": "array", "minItems": 1, "items": looped}
    everything = tool(
        "everything",
        word={"type": "string"},
        pick={"enum": ["a", "b"]},
        count={"type": "integer", "minimum": 3},
        share={"type": "number"},
        sure={"type": "boolean"},
        none={"type": "null"},
        some={"type": "array", "items": {"type": "string"}, "minItems": 2},
        home=address,
        fixed={"const": 9},
        usual={"type": "string", "default": "d"},
        odd=True,
        deep=looped,
    )
    everything["parameters"]["properties"]["optional"] = {"type": "string"}
    async with connected() as client:
        (item,) = (await client.say("call everything", tools=[everything]))["output"]
        made = msgspec.json.decode(item["arguments"])
        assert made.pop("deep")
        assert made == {
            "word": "text",
            "pick": "a",
            "count": 3,
            "share": 1,
            "sure": True,
            "none": None,
            "some": ["text", "text"],
            "home": {"zip": "text"},
            "fixed": 9,
            "usual": "d",
            "odd": {},
        }


async def test_an_interrupted_call_is_incomplete(autojump_clock: Any) -> None:
    async with connected() as client:
        response = await client.say('call! dice {"a": "a rather long argument"}', max_output_tokens=4)
        assert response["status"] == "incomplete"
        assert response["output"][0]["status"] == "incomplete"
        assert response["output"][0]["arguments"] == '{"a": "a rat'
        assert of_kind(client.events, "response.function_call_arguments.done")
