from __future__ import annotations

import base64
from typing import Any

import msgspec
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.kit import check_usage, connected, message, png, silence, tone, tool

IDS = st.sampled_from(["a", "b", "c", "no"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MOMENTS_MS = st.integers(0, 3000)
AUDIO = st.sampled_from([tone(200), silence(200), silence(700), tone(10), b"odd"])
PARTS = st.one_of(
    st.builds(
        lambda text: {"type": "input_text", "text": text},
        st.text(max_size=40)
        | st.sampled_from(
            [
                "call! dice, call clock",
                "one moment, call echo",
                "call echo {}",
                "fail server_error",
                "fail content_filter",
                "fail insufficient_quota",
                "long " * 300,
            ]
        ),
    ),
    st.builds(lambda pcm: {"type": "input_audio", "audio": base64.b64encode(pcm).decode()}, AUDIO),
    st.just({"type": "input_image", "image_url": png(600, 1)}),
    st.just({"type": "output_text", "text": "x"}),
)
ITEMS = st.one_of(
    st.builds(
        lambda role, parts, item_id: message(role, *parts, id=item_id),
        st.sampled_from(["user", "system", "assistant"]),
        st.lists(PARTS, max_size=3),
        IDS | st.none(),
    ),
    st.builds(lambda id_: {"type": "function_call", "name": "f", "arguments": "", "call_id": id_}, IDS),
    st.builds(lambda id_: {"type": "function_call_output", "output": "o", "call_id": id_}, IDS),
    st.builds(
        lambda id_: {
            "type": "mcp_approval_request",
            "id": id_,
            "server_label": "s",
            "name": "echo",
            "arguments": "",
        },
        IDS,
    ),
    st.builds(
        lambda id_, yes: {"type": "mcp_approval_response", "approval_request_id": id_, "approve": yes},
        IDS,
        st.booleans(),
    ),
)
MCP = {"type": "mcp", "server_label": "s", "server_url": "https://example.test"}
TRUNCATION = st.sampled_from(["auto", "disabled"]) | st.builds(
    lambda share, most: {
        "type": "retention_ratio",
        "retention_ratio": share,
        "token_limits": {"post_instructions": most},
    },
    st.sampled_from([0, 0.5, 1]),
    st.sampled_from([0, 1, 100]),
)
GENERATION = {
    "instructions": st.text(max_size=300),
    "output_modalities": st.sampled_from([["text"], ["audio"], ["text", "audio"], []]),
    "max_output_tokens": st.sampled_from(["inf", 1, 7, 0]),
    "tools": st.sampled_from(
        [
            [],
            [tool("clock")],
            [{}],
            [MCP],
            [MCP | {"require_approval": "never"}, tool("clock")],
            [MCP | {"server_url": "https://mcp.invalid"}],
        ]
    ),
    "parallel_tool_calls": st.booleans(),
    "reasoning": st.sampled_from([None, {"effort": "high"}]),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "name": "f"}, "x"]),
}
DETECTION = st.none() | st.fixed_dictionaries(
    {"type": st.sampled_from(["server_vad", "semantic_vad"])},
    optional={
        "threshold": st.sampled_from([0, 0.5, 1]),
        "silence_duration_ms": st.sampled_from([0, 200]),
        "prefix_padding_ms": st.sampled_from([0, 300]),
        "create_response": st.booleans(),
        "interrupt_response": st.booleans(),
    },
)
TRANSCRIPTION = st.sampled_from([None, {"model": "whisper-1"}, {}])
SESSIONS = st.fixed_dictionaries(
    {"type": st.just("realtime")},
    optional={
        **GENERATION,
        "truncation": TRUNCATION,
        "audio": st.builds(
            lambda detection, transcription, voice: {
                "input": {"turn_detection": detection, "transcription": transcription},
                "output": {"voice": voice},
            },
            DETECTION,
            TRANSCRIPTION,
            st.sampled_from(["marin", "ash", None]),
        ),
    },
)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        **GENERATION,
        "conversation": st.sampled_from(["auto", "none"]),
        "metadata": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        "input": st.lists(
            ITEMS | st.builds(lambda id_: {"type": "item_reference", "id": id_}, IDS), max_size=3
        ),
    },
)


def event(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


EVENTS = st.one_of(
    event("session.update", session=SESSIONS),
    event("conversation.item.create", item=ITEMS, previous_item_id=IDS | st.sampled_from([None, "root"])),
    event("conversation.item.delete", item_id=IDS),
    event("conversation.item.retrieve", item_id=IDS),
    event(
        "conversation.item.truncate", item_id=IDS, content_index=st.integers(-1, 1), audio_end_ms=MOMENTS_MS
    ),
    event("input_audio_buffer.append", audio=AUDIO.map(lambda pcm: base64.b64encode(pcm).decode())),
    event("input_audio_buffer.commit"),
    event("input_audio_buffer.clear"),
    event("response.create", response=RESPONSES | st.none()),
    event("response.cancel", response_id=IDS | st.none()),
    st.builds(
        lambda kind, junk: {"type": kind, **junk},
        st.just("response.create"),
        st.dictionaries(st.text(), JSON),
    ),
    st.dictionaries(st.sampled_from(["type", "event_id", "item", "session"]), JSON),
)
STEPS = st.lists(st.tuples(EVENTS, st.sampled_from([0, 0, 0.05, 0.4, 5])), max_size=25)


@settings(max_examples=120, deadline=None)
@given(steps=STEPS)
def test_nothing_a_client_sends_breaks_a_session(steps: list[tuple[dict[str, Any], float]]) -> None:
    """After each event some time passes, so that events fall into responses."""

    async def run() -> list[dict[str, Any]]:
        async with connected(pace=1.0) as client:
            for sent, seconds in steps:
                await client.send_text(msgspec.json.encode(sent).decode())
                await trio.sleep(seconds)
            await client.send("probe", event_id="the end")
            while (await client.receive()).get("error", {}).get("event_id") != "the end":
                pass
        return client.events

    check_history(trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0)))


def check_history(events: list[dict[str, Any]]) -> None:
    active: set[str] = set()
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    for happened in events:
        response = happened.get("response", {})
        if happened["type"] == "response.created" and response["conversation_id"]:
            active.add(response["id"])
            assert len(active) == 1
        if happened["type"] == "response.done":
            active.discard(response["id"])
            check_usage(response["usage"])
            assert response["status"] in ("completed", "cancelled", "incomplete", "failed")
