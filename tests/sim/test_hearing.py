from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.sim.kit import connected, kinds, of_kind, silence, tone

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]


def detection(**fields: Any) -> dict[str, Any]:
    return {"input": {"turn_detection": {"type": "server_vad", **fields}}}


async def test_a_turn_in_documented_order(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.append(silence(1000) + tone(600) + silence(600))
        events = await client.until("response.done")
        assert kinds(events)[:6] == [*TURN, "response.created"]
        started, stopped, committed, added, done = events[:5]
        assert started["audio_start_ms"] == 1000 - 300
        assert stopped["audio_end_ms"] == 1600 + 500
        assert {started["item_id"], stopped["item_id"], committed["item_id"]} == {done["item"]["id"]}
        assert committed["previous_item_id"] is None is added["previous_item_id"]
        assert done["item"]["content"] == [{"type": "input_audio", "transcript": None}]
        (item,) = events[-1]["response"]["output"]
        assert item["content"][0]["transcript"] == "I heard 1.4 seconds of audio."


@pytest.mark.parametrize("piece_ms", [7, 20, 100, 1000])
async def test_times_are_audio_times_however_it_arrives(autojump_clock: Any, piece_ms: int) -> None:
    pcm = silence(700) + tone(300) + silence(400) + tone(300) + silence(1000)
    async with connected() as client:
        await client.update(
            audio=detection(create_response=False, prefix_padding_ms=100, silence_duration_ms=200)
        )
        for at in range(0, len(pcm), 48 * piece_ms):
            await client.append(pcm[at : at + 48 * piece_ms])
            await client.send("input_audio_buffer.flush")  # an error, to know that the piece was heard
            await client.until("error")
        times = [
            e.get("audio_start_ms", e.get("audio_end_ms")) for e in client.events if "speech" in e["type"]
        ]
        assert times == [600, 1200, 1300, 1900]


async def test_the_threshold(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(threshold=0.9, create_response=False))
        await client.append(tone(500, amplitude=1000) + silence(600))
        await client.update(audio=detection(threshold=0.5))
        assert not of_kind(client.events, "input_audio_buffer.speech_started")
        await client.append(tone(500, amplitude=1000) + silence(600))
        assert kinds(await client.until("conversation.item.done")) == TURN


async def test_silence_is_silence_at_any_threshold(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(threshold=0))
        await client.append(silence(1000))
        assert (await client.update())["type"] == "session.updated"


async def test_the_shortest_turn_is_committed(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(
            audio=detection(prefix_padding_ms=0, silence_duration_ms=0, create_response=False)
        )
        await client.append(silence(100) + tone(20) + silence(20))
        events = await client.until("conversation.item.done")
        assert kinds(events) == TURN
        assert (events[0]["audio_start_ms"], events[1]["audio_end_ms"]) == (100, 140)


async def test_speaking_into_a_response_cancels_it(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.user("hello " * 30)
        await client.send("response.create")
        first = (await client.receive())["response"]["id"]
        await client.until("response.output_audio.delta")
        await client.append(tone(500) + silence(600))
        events = await client.until("response.created")
        order = kinds([e for e in events if e["type"] in (*TURN, "response.done", "response.created")])
        assert order == [
            TURN[0],
            "conversation.item.done",
            "response.done",
            *TURN[1:],
            "response.created",
        ]
        (done,) = of_kind(events, "response.done")
        assert done["response"]["id"] == first
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert events[-1]["response"]["id"] != first


async def test_an_out_of_band_response_is_not_interrupted(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.update(audio=detection(create_response=False))
        await client.user("hello")
        await client.send("response.create", response={"conversation": "none"})
        await client.append(tone(500) + silence(600))
        assert (await client.until("response.done"))[-1]["response"]["status"] == "completed"


async def test_without_interrupt_the_response_goes_on(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.update(audio=detection(interrupt_response=False))
        await client.user("hello " * 10)
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.append(tone(500) + silence(600))
        events = await client.until("response.done")
        assert events[-1]["response"]["status"] == "completed"
        assert of_kind(events, "input_audio_buffer.committed")
        assert not of_kind(client.events, "error")
        assert len(of_kind(client.events, "response.created")) == 1


async def test_semantic_vad_waits_by_eagerness(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(
            audio={
                "input": {
                    "turn_detection": {"type": "semantic_vad", "eagerness": "low", "create_response": False}
                }
            }
        )
        await client.append(silence(500) + tone(500) + silence(1000))
        events = await client.until("conversation.item.done")
        assert (events[0]["audio_start_ms"], events[1]["audio_end_ms"]) == (200, 2000)


async def test_the_client_commits_when_detection_is_off(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.user("first")
        await client.append(tone(250) + silence(1000))
        await client.send("input_audio_buffer.commit")
        events = await client.until("conversation.item.done")
        assert kinds(events) == TURN[2:]
        assert events[0]["previous_item_id"] == events[1]["previous_item_id"] is not None
        retrieved = await client.ask("conversation.item.retrieve", item_id=events[0]["item_id"])
        assert base64.b64decode(retrieved["item"]["content"][0]["audio"]) == tone(250) + silence(1000)
        error = await client.refused("input_audio_buffer.commit")
        assert error["code"] == "input_audio_buffer_commit_empty"


async def test_a_commit_while_speaking_takes_the_announced_item(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.append(silence(300) + tone(315))
        started = await client.receive()
        await client.send("input_audio_buffer.commit")
        events = await client.until("conversation.item.done")
        assert kinds(events) == TURN[2:]
        assert events[0]["item_id"] == started["item_id"]
        retrieved = await client.ask("conversation.item.retrieve", item_id=started["item_id"])
        assert len(base64.b64decode(retrieved["item"]["content"][0]["audio"])) == 48 * 615


@pytest.mark.parametrize("turn_detection", [None, {"type": "server_vad"}])
async def test_less_than_100_ms_is_nothing(autojump_clock: Any, turn_detection: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"turn_detection": turn_detection}})
        await client.append(silence(99))
        error = await client.refused("input_audio_buffer.commit")
        assert error["code"] == "input_audio_buffer_commit_empty"
        await client.append(silence(1))
        await client.send("input_audio_buffer.commit")
        assert kinds(await client.until("conversation.item.done")) == TURN[2:]


async def test_what_was_kept_without_detection_is_not_part_of_a_detected_turn(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.append(silence(1000))
        await client.update(audio=detection())
        await client.append(tone(500) + silence(600))
        assert (await client.receive())["audio_start_ms"] == 1000 - 300


async def test_clear(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.append(tone(500))
        assert (await client.receive())["type"] == "input_audio_buffer.speech_started"
        assert (await client.ask("input_audio_buffer.clear"))["type"] == "input_audio_buffer.cleared"
        await client.append(silence(2000))
        assert (await client.ask("input_audio_buffer.clear"))["type"] == "input_audio_buffer.cleared"
        assert (await client.refused("input_audio_buffer.commit"))[
            "code"
        ] == "input_audio_buffer_commit_empty"


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("whisper-1", {"type": "duration", "seconds": 1.2}),
        (
            "gpt-4o-transcribe",
            {
                "type": "tokens",
                "input_tokens": 12,
                "output_tokens": 6,
                "total_tokens": 18,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 12},
            },
        ),
    ],
)
async def test_transcription(autojump_clock: Any, model: str, usage: dict[str, Any]) -> None:
    kind = "conversation.item.input_audio_transcription"
    async with connected() as client:
        await client.update(audio={"input": {"turn_detection": None, "transcription": {"model": model}}})
        await client.append(tone(1200))
        await client.send("input_audio_buffer.commit")
        events = await client.until(f"{kind}.completed")
        assert kinds(events) == [*TURN[2:], f"{kind}.delta", f"{kind}.completed"]
        transcript = "Speech of 1.2 seconds."
        assert "".join(event["delta"] for event in of_kind(events, f"{kind}.delta")) == transcript
        assert (events[-1]["transcript"], events[-1]["usage"]) == (transcript, usage)
        retrieved = await client.ask("conversation.item.retrieve", item_id=events[-1]["item_id"])
        assert retrieved["item"]["content"][0]["transcript"] == transcript
