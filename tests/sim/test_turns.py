"""What the detector's settings make of turns: who answers, who is interrupted, and what silence does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.kit import Client, connected, kinds, of_kind, silence, tone

TIMEOUT = "input_audio_buffer.timeout_triggered"
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]


def detection(**fields: Any) -> dict[str, Any]:
    return {"input": {"turn_detection": {"type": "server_vad", **fields}}}


async def spoke(client: Client) -> int:
    """How long it takes to play the answer to a text."""
    await client.user("hello")
    return 100 * len(of_kind(await client.respond(), "response.output_audio.delta"))


@pytest.mark.parametrize("kind", ["server_vad", "semantic_vad"])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("interrupt", [True, False])
async def test_who_answers_and_who_is_interrupted(
    autojump_clock: Any, kind: str, create: bool, interrupt: bool
) -> None:
    settings = {"type": kind, "create_response": create, "interrupt_response": interrupt}
    async with connected(pace=1.0) as client:
        await client.update(audio={"input": {"turn_detection": settings}})
        await client.user("hello " * 10)
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.append(tone(500) + silence(600))
        events = await client.until("conversation.item.done")
        while (
            len(of_kind(events, "input_audio_buffer.committed")) == 0 or events[-1]["item"]["role"] != "user"
        ):
            events += await client.until("conversation.item.done")
        if not interrupt:
            events += await client.until("response.done")
        (done,) = of_kind(events, "response.done")
        assert done["response"]["status"] == ("cancelled" if interrupt else "completed")
        await client.send("session.update", session={"type": "realtime"})
        events += await client.until("session.updated")
        # What cannot be created because a response is active is not: documented.
        assert len(of_kind(events, "response.created")) == (create and interrupt)


async def test_silence_after_an_answer_is_answered(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(idle_timeout_ms=5000))
        await client.append(silence(2000))
        playing_ms = await spoke(client)
        await client.append(silence(playing_ms + 4980))
        assert (await client.update())["type"] == "session.updated"
        await client.append(silence(20))
        events = await client.until("response.done")
        assert kinds(events)[:5] == [TIMEOUT, *COMMITTED, "response.created"]
        assert (events[0]["audio_start_ms"], events[0]["audio_end_ms"]) == (
            2000 + playing_ms,
            2000 + playing_ms + 5000,
        )
        assert events[0]["item_id"] == events[1]["item_id"]
        (item,) = events[-1]["response"]["output"]
        assert item["content"][0]["transcript"] == "I heard 5.0 seconds of audio."


async def test_it_goes_on_after_each_answer(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(idle_timeout_ms=5000))
        await spoke(client)
        for _ in range(3):
            await client.append(silence(10_000))
            await client.until("rate_limits.updated")
        assert len(of_kind(client.events, TIMEOUT)) == 3


async def test_who_speaks_is_not_idle(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(idle_timeout_ms=5000, create_response=False))
        playing_ms = await spoke(client)
        await client.append(silence(playing_ms + 4000) + tone(3000) + silence(20_000))
        await client.until("conversation.item.done")
        assert (await client.update())["type"] == "session.updated"


async def test_nobody_is_idle_before_the_first_answer(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(idle_timeout_ms=5000))
        await client.append(silence(20_000))
        assert (await client.update())["type"] == "session.updated"


async def test_idle_without_answers(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio=detection(idle_timeout_ms=5000, create_response=False))
        await spoke(client)
        await client.append(silence(20_000))
        assert kinds(await client.until("conversation.item.done")) == [TIMEOUT, *COMMITTED]
        assert (await client.update())["type"] == "session.updated"


async def test_an_answer_that_is_still_sent_is_not_silence(autojump_clock: Any) -> None:
    """At pace 1 the user's audio flows on while the model speaks; idleness counts from when it has ended."""
    async with connected(pace=1.0) as client:
        await client.update(audio=detection(idle_timeout_ms=5000))
        await client.user("hello " * 40)
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.append(silence(8000))
        await client.until("response.done")
        playing_ms = 100 * len(of_kind(client.events, "response.output_audio.delta"))
        assert playing_ms > 8000
        await client.append(silence(15_000))
        assert (await client.until(TIMEOUT))[-1]["audio_start_ms"] == playing_ms
