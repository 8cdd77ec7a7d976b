from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.sim.kit import Client, connected, jpeg, message, png, silence


def text(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


async def order(client: Client) -> list[str]:
    """The ids of the conversation in order, found by what added and committed events said."""
    items: list[str] = []
    for event in client.events:
        if event["type"] == "conversation.item.added":
            before = event["previous_item_id"]
            items.insert(items.index(before) + 1 if before else 0, event["item"]["id"])
        elif event["type"] == "conversation.item.deleted":
            items.remove(event["item_id"])
    return items


async def test_every_kind_of_item_is_echoed(autojump_clock: Any) -> None:
    items = [
        message("system", text("Be brief.")),
        message("user", text("hello"), {"type": "input_image", "image_url": png(2, 2), "detail": "low"}),
        message("assistant", {"type": "output_text", "text": "hi"}),
        {"type": "function_call", "name": "dice", "arguments": "{}", "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "4"},
    ]
    async with connected() as client:
        for sent in items:
            echoed = await client.item(sent)
            assert echoed.pop("id").startswith("item_")
            assert echoed == sent | {"object": "realtime.item", "status": "completed"}


async def test_audio_is_not_echoed_but_retrieved(autojump_clock: Any) -> None:
    audio = base64.b64encode(silence(200)).decode()
    async with connected() as client:
        item = await client.item(message("user", {"type": "input_audio", "audio": audio, "transcript": "hm"}))
        assert item["content"] == [{"type": "input_audio", "transcript": "hm"}]
        retrieved = await client.ask("conversation.item.retrieve", item_id=item["id"])
        assert retrieved["type"] == "conversation.item.retrieved"
        assert retrieved["item"]["content"] == [{"type": "input_audio", "transcript": "hm", "audio": audio}]


async def test_items_are_placed(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.item(message("user", text("b"), id="b"))
        await client.item(message("user", text("d"), id="d"))
        await client.item(message("user", text("a"), id="a"), previous_item_id="root")
        await client.item(message("user", text("c"), id="c"), previous_item_id="b")
        await client.item(message("user", text("e"), id="e"), previous_item_id=None)
        placed = [e["previous_item_id"] for e in client.events if e["type"] == "conversation.item.done"]
        assert placed == [None, "b", None, "b", "d"]
        assert await order(client) == ["a", "b", "c", "d", "e"]
        deleted = await client.ask("conversation.item.delete", item_id="c")
        assert (deleted["type"], deleted["item_id"]) == ("conversation.item.deleted", "c")
        assert (await client.refused("conversation.item.retrieve", item_id="c"))["param"] == "item_id"


async def test_items_that_cannot_be(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.item(message("user", text("x"), id="x"))

        async def code(item: dict[str, Any], **fields: Any) -> tuple[str, str]:
            error = await client.refused("conversation.item.create", item=item, **fields)
            return error["code"], error["param"]

        user = message("user", text("y"))
        assert await code(user | {"id": "x"}) == ("item_create_duplicate_item_id", "item.id")
        assert await code(user, previous_item_id="no") == (
            "item_create_invalid_previous_item_id",
            "previous_item_id",
        )
        output = {"type": "function_call_output", "call_id": "no", "output": ""}
        assert await code(output) == ("invalid_tool_call_id", "item.call_id")
        assert await code(output | {"output": {}}) == ("invalid_value", "item.output")
        spoken = message("assistant", {"type": "output_audio", "audio": ""})
        assert await code(spoken) == ("invalid_value", "item.content[0].type")
        assert await code(message("system", {"type": "input_image", "image_url": png(1, 1)})) == (
            "invalid_value",
            "item.content[0].type",
        )
        assert await code(message("user", text("y"), {"type": "input_image", "image_url": "https://x"})) == (
            "invalid_value",
            "item.content[1].image_url",
        )
        assert await code(message("user", {"type": "input_audio", "audio": "*"})) == (
            "invalid_value",
            "item.content[0].audio",
        )
        assert await code({"type": "item_reference", "id": "x"}) == ("invalid_value", "item.type")
        assert [e["item"]["id"] for e in client.events if e["type"] == "conversation.item.done"] == ["x"]


@pytest.mark.parametrize("verb", ["delete", "retrieve", "truncate"])
async def test_unknown_items(autojump_clock: Any, verb: str) -> None:
    place = {"content_index": 0, "audio_end_ms": 0} if verb == "truncate" else {}
    async with connected() as client:
        error = await client.refused(f"conversation.item.{verb}", item_id="no", **place)
        assert error["code"] == f"item_{verb}_invalid_item_id"


async def test_truncating_what_was_not_heard(autojump_clock: Any) -> None:
    async with connected() as client:
        (item,) = (await client.say("hello"))["output"]
        length_ms = 1000

        async def retrieved() -> dict[str, Any]:
            event = await client.ask("conversation.item.retrieve", item_id=item["id"])
            return event["item"]["content"][0]

        assert len(base64.b64decode((await retrieved())["audio"])) == 48 * length_ms
        assert (await retrieved())["transcript"] == "You said: hello"
        place = {"item_id": item["id"], "content_index": 0}
        error = await client.refused("conversation.item.truncate", **place, audio_end_ms=55960)
        assert error["code"] is None
        assert error["message"] == f"Audio content of {length_ms}ms is already shorter than 55960ms"
        truncated = await client.ask("conversation.item.truncate", **place, audio_end_ms=340)
        assert truncated["type"] == "conversation.item.truncated"
        assert {key: truncated[key] for key in place} | {"audio_end_ms": 340} == place | {"audio_end_ms": 340}
        assert len(base64.b64decode((await retrieved())["audio"])) == 48 * 340
        assert "transcript" not in await retrieved()


async def test_only_assistant_audio_is_truncated(autojump_clock: Any) -> None:
    async with connected() as client:
        user = await client.user("hello")
        (spoken,) = (await client.respond())[-1]["response"]["output"]
        place = {"content_index": 0, "audio_end_ms": 0}
        error = await client.refused("conversation.item.truncate", item_id=user["id"], **place)
        assert error["code"] == "item_truncate_invalid_item_id"
        place["content_index"] = 1
        error = await client.refused("conversation.item.truncate", item_id=spoken["id"], **place)
        assert error["param"] == "content_index"


async def test_images_are_read_and_echoed(autojump_clock: Any) -> None:
    async with connected() as client:
        for uri, seen in (
            (png(320, 200), "a PNG image, 320 x 200"),
            (jpeg(640, 480), "a JPEG image, 640 x 480"),
        ):
            item = await client.item(message("user", {"type": "input_image", "image_url": uri}))
            assert item["content"][0]["image_url"] == uri
            done = (await client.respond())[-1]["response"]
            assert done["output"][0]["content"][0]["transcript"] == f"I see {seen}."


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64,",
        "data:image/png;base64,*",
        "data:image/jpeg;base64,/9g=",
        "data:image/jpeg;base64,/9j/4AAA",
        "data:image/webp;base64,UklGRg==",
        png(1, 1)[:40],
        png(0, 5),
        jpeg(5, 0),
    ],
)
async def test_what_is_no_image(autojump_clock: Any, uri: str) -> None:
    async with connected() as client:
        item = message("user", {"type": "input_image", "image_url": uri})
        error = await client.refused("conversation.item.create", item=item)
        assert error["param"] == "item.content[0].image_url"
