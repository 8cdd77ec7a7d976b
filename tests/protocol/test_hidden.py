from typing import Any

import pytest

from rtpipe.protocol.hidden import mentions, strip

ITEMS = {"h1", "h2"}
RESPONSES = {"rh"}
PREVIOUS = {"h2": "h1", "h1": "v1", "loop": "loop"}


def run(event: dict[str, Any]) -> dict[str, Any] | None:
    return strip(event, ITEMS, RESPONSES, PREVIOUS)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.item.added", "item": {"id": "h1"}, "previous_item_id": "v1"},
        {"type": "conversation.item.deleted", "item_id": "h1"},
        {"type": "response.output_item.done", "response_id": "r", "item": {"id": "h2"}},
        {"type": "response.content_part.added", "response_id": "r", "item_id": "h2"},
        {"type": "response.function_call_arguments.delta", "response_id": "r", "item_id": "h1", "delta": ""},
        {"type": "response.output_audio.delta", "response_id": "rh", "item_id": "v1", "delta": ""},
        {"type": "response.created", "response": {"id": "rh", "output": []}},
        {"type": "output_audio_buffer.started", "response_id": "rh"},
    ],
)
def test_what_belongs_to_the_hidden_is_gone(event: dict[str, Any]) -> None:
    assert run(event) is None


@pytest.mark.parametrize(
    "event",
    [
        {"type": "conversation.item.added", "item": {"id": "v2"}, "previous_item_id": "v1"},
        {"type": "conversation.item.added", "item": {"id": "v1"}, "previous_item_id": None},
        {"type": "response.done", "response": {"id": "r", "output": [{"id": "v2"}, 7, {"id": {}}]}},
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "rate_limits.updated", "rate_limits": []},
        {"type": "unknown", "item": 7, "response": [], "previous_item_id": {}},
    ],
)
def test_the_rest_is_the_same_object(event: dict[str, Any]) -> None:
    assert run(event) is event


def test_output_is_filtered() -> None:
    event = {
        "type": "response.done",
        "response": {"id": "r", "output": [{"id": "h1"}, {"id": "v2"}], "usage": {}},
    }
    response = {"id": "r", "output": [{"id": "v2"}], "usage": {}}
    assert run(event) == {"type": "response.done", "response": response}
    assert len(event["response"]["output"]) == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("previous", "hidden", "visible"),
    [
        ("h1", ITEMS, "v1"),
        ("h2", ITEMS, "v1"),
        ("h2", {"h2"}, "h1"),
        ("h2", {"h1", "h2", "v1"}, None),
        ("loop", {"loop"}, None),
    ],
)
def test_items_are_relinked(previous: str, hidden: set[str], visible: str | None) -> None:
    event = {"type": "conversation.item.added", "item": {"id": "v2"}, "previous_item_id": previous}
    assert strip(event, hidden, set(), PREVIOUS) == {**event, "previous_item_id": visible}
    assert event["previous_item_id"] == previous


def output(call_id: Any) -> dict[str, Any]:
    item = {"type": "function_call_output", "call_id": call_id, "output": ""}
    return {"type": "conversation.item.create", "item": item}


@pytest.mark.parametrize(
    ("event", "refused"),
    [
        ({"type": "conversation.item.retrieve", "item_id": "h1"}, True),
        ({"type": "conversation.item.delete", "item_id": "h1"}, True),
        (
            {"type": "conversation.item.truncate", "item_id": "h1", "content_index": 0, "audio_end_ms": 0},
            True,
        ),
        ({"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "h1"}]}}, True),
        (output("c1"), True),
        (output("c2"), False),
        (output({}), False),
        ({"type": "conversation.item.create", "item": {"type": "message"}, "previous_item_id": "h1"}, False),
        ({"type": "conversation.item.create", "item": {"type": "function_call", "call_id": "c1"}}, False),
        ({"type": "conversation.item.retrieve", "item_id": "v1"}, False),
        ({"type": "conversation.item.retrieve", "item_id": []}, False),
        ({"type": "response.create"}, False),
    ],
)
def test_mentions(event: dict[str, Any], refused: bool) -> None:
    assert mentions(event, ITEMS, {"c1"}) is refused
