"""Transcripts of what the user says, beside a conversation and in sessions made for them alone."""

from __future__ import annotations

from typing import Any

import pytest

from rtpipe.sim.transcription import FAIL
from tests.sim.kit import Client, connected, kinds, of_kind, silence, tone

KIND = "conversation.item.input_audio_transcription"
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
COMMITTED = TURN[2:]


def transcribed(**transcription: Any) -> dict[str, Any]:
    return {"input": {"turn_detection": None, "transcription": transcription}}


async def commit(client: Client, ms: int = 1200) -> list[dict[str, Any]]:
    await client.append(tone(ms))
    await client.send("input_audio_buffer.commit")
    return await client.until(f"{KIND}.completed")


async def test_whisper_sends_all_in_one_delta(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=transcribed(model="whisper-1"))
        events = await commit(client)
        assert [event["delta"] for event in of_kind(events, f"{KIND}.delta")] == ["Speech of 1.2 seconds."]


@pytest.mark.parametrize("model", ["gpt-live-transcribe", "gpt-realtime-whisper"])
async def test_what_is_priced_by_time_is_reported_by_time(autojump_clock: Any, model: str) -> None:
    async with connected() as client:
        await client.update(audio=transcribed(model=model, delay="low"))
        assert (await commit(client))[-1]["usage"] == {"type": "duration", "seconds": 1.2}


async def test_speakers_are_told_apart_where_the_model_does(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=transcribed(model="gpt-4o-transcribe-diarize"))
        events = await commit(client)
        assert kinds(events) == [*COMMITTED, f"{KIND}.delta", f"{KIND}.segment", f"{KIND}.completed"]
        (segment,) = of_kind(events, f"{KIND}.segment")
        assert (segment["speaker"], segment["start"], segment["end"]) == ("A", 0.0, 1.2)
        assert segment["text"] == events[-1]["transcript"]


async def test_languages_and_probabilities_where_they_are_asked_for(autojump_clock: Any) -> None:
    async with connected() as client:
        asked = {"model": "gpt-transcribe", "languages": ["de", "en"], "keywords": ["Oslo"]}
        await client.update(audio=transcribed(**asked), include=["item.input_audio_transcription.logprobs"])
        events = await commit(client)
        assert events[-1]["languages"] == [{"code": "de"}]
        tokens = [each["token"] for each in events[-1]["logprobs"]]
        assert "".join(tokens) == events[-1]["transcript"]
        deltas = of_kind(events, f"{KIND}.delta")
        assert [event["logprobs"][0]["token"] for event in deltas] == tokens


async def test_a_failure_names_its_item(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=transcribed(model="gpt-4o-transcribe", prompt=f"please {FAIL}"))
        await client.append(tone(500))
        await client.send("input_audio_buffer.commit")
        events = await client.until(f"{KIND}.failed")
        assert kinds(events) == [*COMMITTED, f"{KIND}.failed"]
        assert events[-1]["item_id"] == events[0]["item_id"]
        assert events[-1]["error"]["code"] == "audio_unintelligible"


async def test_without_time_it_comes_when_the_reply_has_begun(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"transcription": {"model": "gpt-4o-transcribe"}}})
        await client.append(tone(500) + silence(600))
        order = kinds(await client.until("response.output_item.added"))
        assert order == [*TURN, "response.created", f"{KIND}.delta", f"{KIND}.completed", order[-1]]


async def test_in_time_it_comes_beside_the_reply(autojump_clock: Any) -> None:
    async def run() -> list[dict[str, Any]]:
        async with connected(pace=1.0) as client:
            await client.update(audio={"input": {"transcription": {"model": "gpt-4o-transcribe"}}})
            await client.append(tone(500) + silence(600))
            await client.until("response.done")
        return client.events[2:]

    first, again = await run(), await run()
    assert first == again
    order = [event["type"] for event in first]
    begun, done = order.index("response.output_audio.delta"), order.index("response.done")
    assert begun < order.index(f"{KIND}.delta") < order.index(f"{KIND}.completed") < done
    last_delta = max(at for at, kind in enumerate(order) if kind == f"{KIND}.delta")
    between = order[order.index(f"{KIND}.delta") : last_delta]
    assert "response.output_audio.delta" in between


# --- sessions of transcription


async def test_a_transcription_session_in_whole(autojump_clock: Any) -> None:
    async with connected(bound={"type": "transcription"}) as client:
        created = client.events[0]["session"]
        assert created["object"] == "realtime.transcription_session"
        assert created["audio"]["input"]["turn_detection"] == {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
        }
        asked = {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}}
        updated = await client.ask(
            "session.update", session={"type": "transcription", "audio": {"input": asked}}
        )
        assert updated["session"]["audio"]["input"] == created["audio"]["input"] | asked
        await client.append(silence(500) + tone(500) + silence(600))
        events = await client.until(f"{KIND}.completed")
        assert kinds(events) == [*TURN, f"{KIND}.delta", f"{KIND}.completed"]
        for kind in ("response.create", "response.cancel"):
            error = await client.refused(kind)
            assert (error["code"], error["param"]) == ("invalid_value", "type")
            assert "'input_audio_buffer.commit'" in error["message"]
            assert "response.cancel'," not in error["message"]


@pytest.mark.parametrize("detection", [None, {"type": "server_vad", "silence_duration_ms": 200}])
async def test_nothing_interrupts_or_answers_there(autojump_clock: Any, detection: Any) -> None:
    session = {"type": "transcription", "audio": transcribed(model="whisper-1")}
    async with connected(bound=session) as client:
        session["audio"]["input"]["turn_detection"] = detection
        await client.ask("session.update", session=session)
        await client.append(tone(500) + silence(300))
        if detection is None:
            await client.send("input_audio_buffer.commit")
        await client.until(f"{KIND}.completed")
        assert (await client.ask("session.update", session=session))["type"] == "session.updated"


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime"}, "invalid_parameter", "session.type"),
        ({"type": "transcription", "instructions": "x"}, "unknown_parameter", "session.instructions"),
        ({"type": "transcription", "audio": {"output": {}}}, "unknown_parameter", "session.audio.output"),
        (
            {
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}},
            },
            "invalid_value",
            "session.audio.input.turn_detection",
        ),
    ],
)
async def test_wrong_updates_there(autojump_clock: Any, session: Any, code: str, param: str) -> None:
    async with connected(bound={"type": "transcription"}) as client:
        error = await client.refused("session.update", session=session)
        assert (error["code"], error["param"]) == (code, param)
        updated = await client.ask("session.update", session={"type": "transcription"})
        assert updated["session"] == client.events[0]["session"]


async def test_a_conversation_takes_no_update_of_a_transcription(autojump_clock: Any) -> None:
    async with connected() as client:
        error = await client.refused("session.update", session={"type": "transcription"})
        assert (error["code"], error["param"]) == ("invalid_parameter", "session.type")
        assert error["message"] == (
            "Passing a transcription session update event to a realtime session is not allowed."
        )
