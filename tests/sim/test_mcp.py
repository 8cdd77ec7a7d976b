from __future__ import annotations

from typing import Any

from tests.sim.kit import connected, kinds, of_kind


def server(label: str = "docs", host: str = "example.test", **fields: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": label, "server_url": f"https://{host}/mcp", **fields}


async def test_the_tools_of_a_server_are_listed_once(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(tools=[server(allowed_tools=["search", "fetch"])])
        events = await client.until("conversation.item.done")
        assert kinds(events) == [
            "conversation.item.added",
            "mcp_list_tools.in_progress",
            "mcp_list_tools.completed",
            "conversation.item.done",
        ]
        item = events[-1]["item"]
        assert (item["type"], item["server_label"]) == ("mcp_list_tools", "docs")
        assert [each["name"] for each in item["tools"]] == ["search", "fetch"]
        assert {event["item_id"] for event in events[1:3]} == {item["id"]}
        await client.update(instructions="x")
        assert (await client.update())["type"] == "session.updated"
        assert len(of_kind(client.events, "mcp_list_tools.in_progress")) == 1


async def test_a_server_that_is_not_there(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(tools=[server(host="mcp.invalid", require_approval="never")])
        events = await client.until("mcp_list_tools.failed")
        assert events[0]["item"]["tools"] == []
        (item,) = (await client.say("call echo"))["output"]
        assert item["type"] == "message"


async def test_a_call_and_its_result(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(tools=[server(require_approval="never")])
        await client.until("conversation.item.done")
        await client.user('call echo {"words": "good morning"}')
        events = await client.respond()
        assert kinds(events) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.mcp_call_arguments.delta",
            "response.mcp_call_arguments.done",
            "response.mcp_call.in_progress",
            "response.mcp_call.completed",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        (call,) = events[-1]["response"]["output"]
        assert call["arguments"] == '{"words": "good morning"}'
        assert call["output"] == 'echo was called with {"words": "good morning"}'
        (answer,) = (await client.respond())[-1]["response"]["output"]
        assert answer["content"][0]["transcript"] == f"The tool answered: {call['output']}"
        again = await client.say("thanks")
        assert again["output"][0]["content"][0]["transcript"] == "You said: thanks"


async def test_a_call_that_fails(autojump_clock: Any) -> None:
    async with connected() as client:
        response = await client.say('call echo {"fail": "no"}', tools=[server(require_approval="never")])
        (call,) = response["output"]
        assert call["error"] == {"type": "tool_execution_error", "message": "no"}
        assert "output" not in call
        assert of_kind(client.events, "response.mcp_call.failed")
        assert response["status"] == "completed"


async def test_approval(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(tools=[server()])
        await client.until("conversation.item.done")
        for approve in (True, False):
            (request,) = (await client.say("call echo {}"))["output"]
            assert (request["type"], request["name"]) == ("mcp_approval_request", "echo")
            await client.item(
                {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
            )
            (answer,) = (await client.respond())[-1]["response"]["output"]
            if approve:
                assert (answer["type"], answer["approval_request_id"]) == ("mcp_call", request["id"])
                await client.respond()
            else:
                assert answer["content"][0]["transcript"] == "The call was not approved."
        error = await client.refused(
            "conversation.item.create",
            item={"type": "mcp_approval_response", "approval_request_id": "no", "approve": True},
        )
        assert (error["code"], error["param"]) == ("invalid_value", "item.approval_request_id")


async def test_which_calls_need_approval(autojump_clock: Any) -> None:
    spared = {"never": {"tool_names": ["echo"]}}
    async with connected() as client:
        for policy, kind in (
            ("always", "mcp_approval_request"),
            ("never", "mcp_call"),
            (spared, "mcp_call"),
            ({"never": {"tool_names": ["other"]}}, "mcp_approval_request"),
        ):
            response = await client.say("call echo", tools=[server(require_approval=policy)])
            assert response["output"][0]["type"] == kind
            await client.respond()  # about the result
        chosen = {"type": "mcp", "server_label": "docs", "name": "echo"}
        response = await client.say("hello", tools=[server(require_approval="never")], tool_choice=chosen)
        assert response["output"][0]["type"] == "mcp_call"


async def test_a_history_of_mcp_can_be_told_again(autojump_clock: Any) -> None:
    """The items of one session are taken by another."""
    async with connected() as client:
        await client.update(tools=[server()])
        await client.until("conversation.item.done")
        (request,) = (await client.say("call echo {}"))["output"]
        await client.item(
            {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
        )
        await client.respond()
        items = {
            event["item"]["id"]: event["item"] for event in of_kind(client.events, "conversation.item.done")
        }
    async with connected() as client:
        for item in items.values():
            assert await client.item(item) == {key: value for key, value in item.items() if value is not None}
