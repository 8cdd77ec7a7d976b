from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from tests.sim.kit import connected, tool


async def test_session_created_is_the_whole_session(autojump_clock: Any) -> None:
    before = int(time.time())
    async with connected(model="gpt-realtime-mini") as client:
        session = client.events[0]["session"]
    assert session["id"].startswith("sess_")
    assert 0 <= session["expires_at"] - before - 3600 <= 5
    del session["id"], session["expires_at"]
    assert session == {
        "type": "realtime",
        "object": "realtime.session",
        "model": "gpt-realtime-mini",
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "include": None,
        "prompt": None,
        "tracing": None,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "idle_timeout_ms": None,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
        },
    }


async def test_an_update_changes_only_what_is_present(autojump_clock: Any) -> None:
    async with connected() as client:
        before = client.events[0]["session"]
        after = (await client.update(instructions="Be kind.", tools=[tool("dice")]))["session"]
        assert after == before | {"instructions": "Be kind.", "tools": [tool("dice")]}
        after = await client.update(
            audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.9}}}
        )
        detection = after["session"]["audio"]["input"]["turn_detection"]
        assert (detection["threshold"], detection["silence_duration_ms"]) == (0.9, 500)
        assert after["session"]["instructions"] == "Be kind."
        assert after["session"]["audio"]["output"] == before["audio"]["output"]


async def test_empty_and_null_clear(autojump_clock: Any) -> None:
    on = {"transcription": {"model": "whisper-1"}, "noise_reduction": {"type": "near_field", "strength": 0.5}}
    off = {"transcription": None, "noise_reduction": None, "turn_detection": None}
    async with connected() as client:
        session = (await client.update(instructions="x", tools=[tool("dice")], audio={"input": on}))[
            "session"
        ]
        assert session["audio"]["input"]["transcription"] == {"model": "whisper-1"}
        session = (await client.update(instructions="", tools=[], audio={"input": off}))["session"]
        assert (session["instructions"], session["tools"]) == ("", [])
        assert {key: session["audio"]["input"][key] for key in off} == off


async def test_noise_reduction_keeps_the_strength_that_is_omitted(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"noise_reduction": {"type": "near_field", "strength": 0.5}}})
        updated = await client.update(audio={"input": {"noise_reduction": {"type": "far_field"}}})
        assert updated["session"]["audio"]["input"]["noise_reduction"] == {
            "type": "far_field",
            "strength": 0.5,
        }


async def test_semantic_vad_has_its_own_defaults(autojump_clock: Any) -> None:
    async with connected() as client:
        updated = await client.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
        assert updated["session"]["audio"]["input"]["turn_detection"] == {
            "type": "semantic_vad",
            "eagerness": "auto",
            "create_response": True,
            "interrupt_response": True,
        }


async def test_the_model_of_an_update_has_no_effect(autojump_clock: Any) -> None:
    async with connected() as client:
        updated = await client.update(model="gpt-realtime-mini", instructions="x")
        assert updated["session"]["model"] == "gpt-realtime-2.1"


async def test_all_other_fields_are_accepted_and_echoed(autojump_clock: Any) -> None:
    fields: dict[str, Any] = {
        "include": ["item.input_audio_transcription.logprobs"],
        "max_output_tokens": 100,
        "output_modalities": ["text"],
        "parallel_tool_calls": True,
        "prompt": {"id": "pmpt_1", "version": "2"},
        "reasoning": {"effort": "low"},
        "tool_choice": {"type": "function", "name": "dice"},
        "tracing": {"workflow_name": "w"},
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "tools": [tool("dice"), {"type": "mcp", "server_label": "s", "server_url": "https://example.test"}],
    }
    async with connected() as client:
        session = (await client.update(**fields))["session"]
        assert {key: session[key] for key in fields} == fields


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"instructions": "x"}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "temperature": 1}, "unknown_parameter", "session.temperature"),
        (
            {"type": "realtime", "audio": {"input": {"vad": 1}}},
            "unknown_parameter",
            "session.audio.input.vad",
        ),
        (
            {"type": "realtime", "tools": [{"type": "function"}]},
            "missing_required_parameter",
            "session.tools[0].name",
        ),
        (
            {"type": "realtime", "output_modalities": ["text", "audio"]},
            "invalid_value",
            "session.output_modalities",
        ),
        ({"type": "realtime", "instructions": 5}, "invalid_value", "session.instructions"),
        ({"type": "translation"}, "invalid_value", "session.type"),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {"type": "realtime", "audio": {"input": {"transcription": {"model": "parakeet"}}}},
            "invalid_value",
            "session.audio.input.transcription.model",
        ),
        (
            {"type": "realtime", "audio": {"output": {"voice": "nobody"}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"type": "realtime", "audio": {"output": {"speed": 2}}},
            "invalid_value",
            "session.audio.output.speed",
        ),
        (
            {"type": "realtime", "tools": [{"type": "mcp", "server_label": "s"}]},
            "missing_required_parameter",
            "session.tools[0].server_url",
        ),
        (
            {
                "type": "realtime",
                "tools": [{"type": "mcp", "server_label": "s", "server_url": "x", "require_approval": "no"}],
            },
            "invalid_value",
            "session.tools[0].require_approval",
        ),
        ("x", "invalid_value", "session"),
    ],
)
async def test_a_wrong_update_is_refused_whole(
    autojump_clock: Any, session: Any, code: str, param: str
) -> None:
    async with connected() as client:
        if isinstance(session, dict) and "instructions" not in session:
            session = session | {"instructions": "lost with the rest"}
        error = await client.refused("session.update", session=session)
        assert (error["code"], error["param"]) == (code, param)
        assert (await client.update())["session"] == client.events[0]["session"]


async def test_the_voice_is_fixed_once_it_was_heard(autojump_clock: Any) -> None:
    def voice(name: str) -> dict[str, Any]:
        return {"output": {"voice": name}}

    async with connected() as client:
        assert (await client.update(audio=voice("cedar")))["type"] == "session.updated"
        await client.say("hello", output_modalities=["text"])
        assert (await client.update(audio=voice("ash")))["type"] == "session.updated"
        await client.say("hello")
        error = await client.refused(
            "session.update", session={"type": "realtime", "audio": voice("marin"), "instructions": "x"}
        )
        assert error["code"] == "cannot_update_voice"
        session = (await client.update(audio=voice("ash")))["session"]
        assert (session["audio"]["output"]["voice"], session["instructions"]) == ("ash", "")


async def test_tracing_is_fixed_once_it_is_on(autojump_clock: Any) -> None:
    async with connected() as client:
        assert (await client.update(tracing="auto"))["session"]["tracing"] == "auto"
        error = await client.refused("session.update", session={"type": "realtime", "tracing": None})
        assert error["param"] == "session.tracing"


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "", '{"type": "response.create"} x', "\0", "[" * 100_000])
async def test_what_is_not_a_json_object(autojump_clock: Any, text: str) -> None:
    async with connected() as client:
        await client.send_text(text)
        error = (await client.receive())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_json")
        assert error["event_id"] is None


@pytest.mark.parametrize("depth", [190, 240, 970, 980, 985])
async def test_deeply_nested_json_is_echoed_or_refused(autojump_clock: Any, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    parameters = f'{{"type": "function", "name": "x", "parameters": {{"a": {nested}}}}}'
    async with connected() as client:
        await client.send_text(f'{{"type": {nested}}}')
        assert (await client.receive())["type"] == "error"
        await client.send_text(
            f'{{"type": "session.update", "session": {{"type": "realtime", "tools": [{parameters}]}}}}'
        )
        assert (await client.receive())["type"] == ("session.updated" if depth < 195 else "error")


async def test_an_unknown_type_is_told_which_are_known(autojump_clock: Any) -> None:
    async with connected() as client:
        for kind in ("session.upgrade", "response.done"):
            error = await client.refused(kind)
            assert (error["code"], error["param"]) == ("invalid_value", "type")
            assert "'conversation.item.truncate'" in error["message"]
        await client.send_text('{"event_id": "e"}')
        error = (await client.receive())["error"]
        assert (error["code"], error["param"], error["event_id"]) == (
            "missing_required_parameter",
            "type",
            "e",
        )
        await client.send_text('{"type": 5, "event_id": 5}')
        assert (await client.receive())["error"]["event_id"] is None


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
        ({"type": "conversation.item.create", "item": {}}, "missing_required_parameter", "item.type"),
        ({"type": "conversation.item.delete"}, "missing_required_parameter", "item_id"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "é"}, "invalid_value", "audio"),
        ({"type": "response.create", "response": {"voice": "x"}}, "unknown_parameter", "response.voice"),
        ({"type": "response.create", "respons": {}}, "unknown_parameter", "respons"),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "content_index": 0},
            "missing_required_parameter",
            "audio_end_ms",
        ),
    ],
)
async def test_wrong_fields(autojump_clock: Any, event: dict[str, Any], code: str, param: str) -> None:
    async with connected() as client:
        error = await client.refused(event.pop("type"), **event)
        assert (error["code"], error["param"]) == (code, param)


async def test_a_seed_makes_every_run_the_same(autojump_clock: Any) -> None:
    async def run(**options: Any) -> list[dict[str, Any]]:
        async with connected(**options) as client:
            await client.say("call! dice and call! clock")
            await client.say("hello")
        for event in client.events:
            event.get("session", {}).pop("expires_at", None)
        return client.events

    first, again, other, unseeded = await run(), await run(), await run(seed=8), await run(seed=None)
    assert first == again
    ids = [{event["event_id"] for event in events} for events in (first, other, unseeded)]
    assert all(len(made) == len(first) for made in ids)
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


async def test_a_client_that_does_not_read_stops_the_model(autojump_clock: Any) -> None:
    async with connected(buffer=0) as client:
        await client.user("hello")
        await client.send("response.create")
        await trio.sleep(1000)
        assert (await client.receive())["type"] == "response.created"
        assert (await client.receive())["type"] == "response.output_item.added"


async def test_a_client_that_leaves_ends_a_speaking_session(autojump_clock: Any) -> None:
    with trio.fail_after(1):
        async with connected(pace=1.0) as client:
            await client.user("hello " * 100)
            await client.send("response.create")
            await client.until("response.output_audio.delta")
