"""The "hold on": once a response, in time, and over nobody."""

import base64
from typing import Any

import pytest
import trio

from rtpipe import facts
from rtpipe.testing import SimOptions


def is_filler(event: Any) -> bool:
    return "rtpipe_filler" in (event.get("response") or {}).get("metadata", {})


def fillers(talking: Any) -> list[Any]:
    return [event for event in talking.sent() if is_filler(event)]


async def test_after_two_seconds_the_model_is_asked_to_hold_the_line(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("lookup", after_s=4)
    async with talk(filler="model", filler_instructions="Say: one moment.") as talking:
        await talking.calls(("lookup", {}), ("lookup", {"again": True}))
        await trio.sleep(1.9)
        assert talking.sent() == []
        await trio.sleep(0.2)
        (create,) = talking.sent()
        assert create["response"]["conversation"] == "none"
        assert create["response"]["instructions"] == "Say: one moment."
        assert create["response"]["tool_choice"] == "none"
        # It is the client's to hear, and the answer waits for its end.
        metadata = create["response"]["metadata"]
        talking.chain.client.take()
        await talking.begins("hold", metadata=metadata, conversation_id=None)
        assert talking.chain.client.take_types() == ["response.created"]
        await trio.sleep(5)
        assert len(await talking.outputs()) == 2
        await trio.sleep(1)
        assert talking.sent() == []
        await talking.ends("hold")
        await talking.chain.settle()
        (answer,) = talking.sent()
        assert not is_filler(answer)


async def test_none_when_the_tool_is_quick_or_the_operator_wants_none(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("quick", after_s=1.9)
    offer.answers("slow", after_s=4)
    async with talk(filler="model") as talking:
        await talking.calls(("quick", {}))
        await trio.sleep(10)
        assert fillers(talking) == []
    async with talk(filler="none") as talking:
        await talking.calls(("slow", {}))
        await trio.sleep(10)
        assert fillers(talking) == []


async def test_the_delay_is_the_operators(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("slow", after_s=4)
    async with talk(filler="model", filler_after_s=0.5) as talking:
        await talking.calls(("slow", {}))
        await trio.sleep(0.6)
        assert len(fillers(talking)) == 1
        await trio.sleep(10)
        assert fillers(talking) == []


async def test_never_over_another_voice_or_what_is_still_playing(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("slow", after_s=4.9)
    async with talk(filler="model") as talking:
        await talking.begins("resp")
        second = base64.b64encode(bytes(48_000)).decode()
        for _ in range(3):
            await talking.upstream(
                "response.output_audio.delta", response_id="resp", item_id="i", delta=second
            )
        await talking.finished("resp", "call_a", "slow", "{}")
        await trio.sleep(2.5)
        assert fillers(talking) == []  # the response runs
        await talking.ends("resp")
        await trio.sleep(0.4)
        assert fillers(talking) == []  # its last words play
        await trio.sleep(0.2)
        assert len(fillers(talking)) == 1


async def test_never_over_the_caller_nor_after_a_barge_in(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("slow", after_s=4)
    async with talk(filler="model") as talking:
        await talking.calls(("slow", {}))
        await trio.sleep(1)
        await talking.turn()
        await trio.sleep(2.5)
        assert fillers(talking) == []


@pytest.mark.parametrize("begun", [True, False])
async def test_a_caller_who_begins_to_speak_silences_it(
    talk: Any, offer: Any, begun: bool, autojump_clock: Any
) -> None:
    offer.answers("slow", after_s=4)
    async with talk(filler="model") as talking:
        await talking.calls(("slow", {}))
        await trio.sleep(2.1)
        (create,) = fillers(talking)

        async def begin() -> None:
            await talking.begins("hold", metadata=create["response"]["metadata"], conversation_id=None)

        if begun:
            await begin()
        await talking.upstream("input_audio_buffer.speech_started", item_id="u")
        if not begun:
            await begin()
        (cancel,) = talking.sent()
        assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "hold")


async def test_a_filler_that_never_begins_does_not_keep_the_answer_back(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("slow", after_s=4)
    async with talk(filler="model") as talking:
        await talking.calls(("slow", {}))
        await trio.sleep(2.1)
        (create,) = fillers(talking)
        error = {"type": "server_error", "code": "overloaded", "event_id": create["event_id"]}
        await talking.upstream("error", error=error)
        await trio.sleep(2.1)
        assert [event["type"] for event in talking.sent()] == ["conversation.item.create", "response.create"]
        assert "error" not in talking.chain.client.take_types()


# --- with the simulated model, which speaks in real time


async def test_a_whole_conversation_with_the_simulated_model(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("lookup", "found", after_s=4)
    async with talk(filler="model", sim=SimOptions(pace=1, seed=1)) as talking:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "call lookup"}]}
        await talking.client("conversation.item.create", item=item)
        await talking.client("response.create")
        await trio.sleep(60)
        seen = talking.chain.client.take()
        kinds = [event["type"] for event in seen]
        assert kinds.count("response.created") == kinds.count("response.done") == 3
        assert "error" not in kinds
        outputs = [event["response"]["output"] for event in seen if event["type"] == "response.done"]
        assert outputs[0] == []
        assert "found" in outputs[2][0]["content"][0]["transcript"]
        assert not [event for event in seen if "call_id" in str(event)]
        assert talking.statuses() == ["ok"]
        ended = [fact for fact in talking.chain.facts if isinstance(fact, facts.ResponseEnded)]
        assert [fact.origin for fact in ended] == ["client", "tool-dispatcher", "tool-dispatcher"]
        talking.chain.check_fates()


async def test_none_while_the_client_is_away(talk: Any, offer: Any, autojump_clock: Any) -> None:
    offer.answers("slow", "there it is", after_s=4.5)
    async with talk(filler="model") as talking:
        talking.chain.session.parking.allow()
        await talking.calls(("slow", {}))
        talking.chain.client.connection.abort()
        await trio.sleep(10)
        output, create = talking.sent()
        assert "there it is" in output["item"]["output"]
        assert not is_filler(create)


async def test_one_when_the_client_is_back_in_time_to_hear_it(
    talk: Any, offer: Any, autojump_clock: Any
) -> None:
    offer.answers("slow", after_s=4.5)
    async with talk(filler="model") as talking:
        talking.chain.session.parking.allow()
        await talking.calls(("slow", {}))
        talking.chain.client.connection.abort()
        await trio.sleep(4)
        assert talking.sent() == []
        await talking.chain.replace_client()
        assert len(fillers(talking)) == 1
