"""The codecs, the voice, and whether what is said can be heard."""

from __future__ import annotations

import array
import base64
import math
import sys
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpipe.sim.sound import ENCODINGS
from rtpipe.sim.speech import chunk
from tests.sim.kit import Client, connected, kinds, message, of_kind

G711 = ["audio/pcmu", "audio/pcma"]
SAMPLES = st.integers(-32768, 32767)


def encoded(kind: str, ms: int, amplitude: int) -> bytes:
    samples = [int(amplitude * math.sin(2 * math.pi * 200 * n / 24000)) for n in range(24 * ms)]
    return ENCODINGS[kind].encode(samples)


def both_ways(kind: str) -> dict[str, Any]:
    return {"input": {"format": {"type": kind}}, "output": {"format": {"type": kind}}}


@pytest.mark.parametrize("kind", G711)
def test_the_levels_are_those_of_the_standard(kind: str) -> None:
    levels = ENCODINGS[kind].levels
    assert levels is not None
    # From the tables of ITU-T G.711, scaled to 16 bits: the largest, the least, and the halves of the scale.
    expected = {
        "audio/pcmu": {0x00: -32124, 0x80: 32124, 0xFF: 0, 0x7F: 0, 0x8F: 16764, 0xFE: 8},
        "audio/pcma": {0x2A: -32256, 0xAA: 32256, 0xD5: 8, 0x55: -8, 0xA5: 16896, 0xD4: 24},
    }
    assert {byte: levels[byte] for byte in expected[kind]} == expected[kind]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the standard library has no codec any more")
@pytest.mark.parametrize(("kind", "name"), [("audio/pcmu", "ulaw2lin"), ("audio/pcma", "alaw2lin")])
def test_the_levels_are_those_of_the_standard_library(kind: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop
    linear = array.array("h", getattr(audioop, name)(bytes(range(256)), 2))
    assert linear.tolist() == list(ENCODINGS[kind].levels or ())


@pytest.mark.parametrize("kind", G711)
@given(sample=SAMPLES)
def test_what_is_encoded_is_near_what_it_was(kind: str, sample: int) -> None:
    levels = ENCODINGS[kind].levels
    assert levels is not None
    (byte,) = ENCODINGS[kind].encode([sample] * 3)
    assert all(abs(levels[byte] - sample) <= abs(level - sample) for level in levels)


@given(samples=st.lists(SAMPLES, min_size=1))
def test_pcm_is_little_endian(samples: list[int]) -> None:
    pcm = ENCODINGS["audio/pcm"].encode(samples)
    assert [
        int.from_bytes(pcm[at : at + 2], "little", signed=True) for at in range(0, len(pcm), 2)
    ] == samples


@pytest.mark.parametrize("kind", ENCODINGS)
def test_the_voice_speaks_and_pauses(kind: str) -> None:
    """As speech does and a hum does not: loudness comes and goes, pitch and timbre change, nothing clips."""
    encoding = ENCODINGS[kind]
    said = b"".join(chunk(index, encoding) for index in range(28))
    assert len(said) == 2800 * encoding.bytes_per_ms
    frames = [
        encoding.loudness(said[at : at + 20 * encoding.bytes_per_ms])
        for at in range(0, len(said), 20 * encoding.bytes_per_ms)
    ]
    assert sum(loudness >= 500 for loudness in frames) > 0.8 * len(frames)
    assert sum(loudness < 50 for loudness in frames) > 0.05 * len(frames)
    assert max(frames) < 16000
    assert chunk(28, encoding) == chunk(0, encoding)


@pytest.mark.parametrize("kind", ENCODINGS)
async def test_the_model_can_be_heard_by_itself(autojump_clock: Any, kind: str) -> None:
    """What it says, in any format, is a turn of speech to its own detector, and lasts as long as is told."""
    async with connected() as client:
        await client.update(audio=both_ways(kind))
        await client.user("This is a sentence that takes some five seconds to say, so it has pauses in it.")
        deltas = of_kind(await client.respond(), "response.output_audio.delta")
        said = b"".join(base64.b64decode(event["delta"]) for event in deltas)
        assert len(said) == len(deltas) * 100 * ENCODINGS[kind].bytes_per_ms
        quiet = ENCODINGS[kind].encode([0] * 24 * 700)
        await client.append(said + quiet)
        events = await client.until("response.done")
        assert len(of_kind(events, "input_audio_buffer.speech_started")) == 1
        stopped = of_kind(events, "input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
        assert 0 <= 100 * len(deltas) + 500 - stopped <= 200  # it may end in a pause
        (item,) = events[-1]["response"]["output"]
        assert item["content"][0]["transcript"] == f"I heard {stopped / 1000:.1f} seconds of audio."
        assert events[-1]["response"]["audio"]["output"]["format"] == (
            {"type": kind, "rate": 24000} if kind == "audio/pcm" else {"type": kind}
        )


@pytest.mark.parametrize("kind", G711)
async def test_turns_of_g711(autojump_clock: Any, kind: str) -> None:
    async with connected() as client:
        await client.update(audio=both_ways(kind))
        quiet = encoded(kind, 1000, 0)
        for at in range(0, len(quiet), 77):
            await client.append(quiet[at : at + 77])
        await client.append(encoded(kind, 600, 8000) + encoded(kind, 600, 0))
        events = await client.until("response.done")
        assert events[0]["audio_start_ms"] == 1000 - 300
        assert events[1]["audio_end_ms"] == 1600 + 500
        assert events[-1]["response"]["usage"]["input_token_details"]["audio_tokens"] == 14
        retrieved = await _retrieve(client, events[0]["item_id"])
        assert retrieved == (quiet + encoded(kind, 600, 8000) + encoded(kind, 600, 0))[700 * 8 : 2100 * 8]


async def _retrieve(client: Client, item_id: str) -> bytes:
    await client.until("rate_limits.updated")
    retrieved = await client.ask("conversation.item.retrieve", item_id=item_id)
    return base64.b64decode(retrieved["item"]["content"][0]["audio"])


@pytest.mark.parametrize("kind", G711)
async def test_silence_of_g711_is_silence_at_any_threshold(autojump_clock: Any, kind: str) -> None:
    async with connected() as client:
        detection = {"type": "server_vad", "threshold": 0}
        await client.update(audio={"input": {"format": {"type": kind}, "turn_detection": detection}})
        await client.append(encoded(kind, 1000, 0))
        assert (await client.update())["type"] == "session.updated"


async def test_too_little_g711_is_nothing(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}})
        await client.append(bytes(8 * 100 - 4))
        error = await client.refused("input_audio_buffer.commit")
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert "only has 99.50ms" in error["message"]
        await client.append(bytes(4))
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.done")


async def test_another_format_drops_what_waits_in_the_old(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.append(bytes(48 * 500))
        await client.update(audio={"input": {"format": {"type": "audio/pcmu"}}})
        await client.append(bytes(8 * 50))
        assert "50.00ms" in (await client.refused("input_audio_buffer.commit"))["message"]
        await client.update(audio={"input": {"turn_detection": {"type": "server_vad"}}})
        await client.append(encoded("audio/pcmu", 200, 8000))
        assert (await client.receive())["audio_start_ms"] == 500  # where the new format begins


async def test_truncation_counts_in_the_format_it_was_said_in(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=both_ways("audio/pcmu"))
        (item,) = (await client.say("hello"))["output"]
        cut = {"item_id": item["id"], "content_index": 0}
        error = await client.refused("conversation.item.truncate", **cut, audio_end_ms=60_000)
        assert "already shorter than 60000ms" in error["message"]
        await client.ask("conversation.item.truncate", **cut, audio_end_ms=250)
        retrieved = await client.ask("conversation.item.retrieve", item_id=item["id"])
        assert len(base64.b64decode(retrieved["item"]["content"][0]["audio"])) == 250 * 8


async def test_audio_in_items_is_in_the_format_of_the_input(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"format": {"type": "audio/pcma"}}})
        audio = base64.b64encode(bytes(8 * 1500)).decode()
        await client.item(message("user", {"type": "input_audio", "audio": audio}))
        events = await client.respond()
        assert (
            events[-1]["response"]["output"][0]["content"][0]["transcript"] == "I heard 1.5 seconds of audio."
        )


async def test_an_append_has_a_limit(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"input": {"turn_detection": None}})
        largest = base64.b64encode(bytes(15 * 1024 * 1024)).decode()
        await client.send("input_audio_buffer.append", audio=largest)
        error = await client.refused("input_audio_buffer.append", audio=largest + "AAAA")
        assert (error["code"], error["param"]) == ("invalid_value", "audio")


async def test_speed_changes_how_long_it_takes(autojump_clock: Any) -> None:
    async with connected() as client:
        counts = []
        for speed in (0.25, 1.0, 1.5):
            await client.update(audio={"output": {"speed": speed}})
            await client.user("The same words.")
            counts.append(len(of_kind(await client.respond(), "response.output_audio.delta")))
        assert counts == [67, 17, 12]  # 25 characters with "You said: ", at 15 a second


async def test_a_response_cannot_change_the_voice_that_was_heard(autojump_clock: Any) -> None:
    def voice(name: str) -> dict[str, Any]:
        return {"audio": {"output": {"voice": name}}}

    async with connected() as client:
        error = await client.refused("response.create", response=voice("nobody"))
        assert (error["code"], error["param"]) == ("invalid_value", "response.audio.output.voice")
        assert (await client.respond(**voice("ash")))[-1]["response"]["audio"]["output"]["voice"] == "ash"
        error = await client.refused("response.create", response=voice("cedar"))
        assert (error["code"], error["param"]) == ("cannot_update_voice", "response.audio.output.voice")
        assert (await client.respond(**voice("ash")))[-1]["response"]["status"] == "completed"


async def test_a_response_may_speak_another_format(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.user("hello")
        events = await client.respond(audio={"output": {"format": {"type": "audio/pcmu"}}})
        assert len(base64.b64decode(of_kind(events, "response.output_audio.delta")[0]["delta"])) == 800
        assert kinds(events)[-1] == "response.done"
