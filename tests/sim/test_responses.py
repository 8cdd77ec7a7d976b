from __future__ import annotations

import base64
from typing import Any

import pytest
import trio

from tests.sim.kit import Client, check_usage, connected, kinds, message, of_kind


async def test_an_audio_response_in_documented_order(autojump_clock: Any) -> None:
    async with connected() as client:
        user = await client.user("how are you")
        events = await client.respond()
        assert kinds(events)[:6] == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
        ]
        assert kinds(events)[-6:] == [
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        said = "You said: how are you"
        deltas = of_kind(events, "response.output_audio_transcript.delta")
        assert "".join(event["delta"] for event in deltas) == said
        (part,) = of_kind(events, "response.content_part.done")
        assert part["part"] == {"type": "audio", "transcript": said}
        (added,) = of_kind(events, "conversation.item.added")
        assert added["previous_item_id"] == user["id"]
        assert (added["item"]["status"], added["item"]["content"]) == ("in_progress", [])
        (done,) = of_kind(events, "conversation.item.done")
        assert done["item"]["status"] == "completed"
        assert done["item"]["content"] == [{"type": "output_audio", "transcript": said}]
        created, response = events[0]["response"], events[-1]["response"]
        assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
        assert (response["status"], response["status_details"]) == ("completed", None)
        assert response["output"] == [done["item"]]
        assert response["conversation_id"].startswith("conv_")
        assert len(of_kind(client.events, "rate_limits.updated")) == 1


async def test_a_text_response_in_documented_order(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.user("how  are\nyou ")
        events = await client.respond(output_modalities=["text"])
        assert kinds(events) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        said = "You said: how  are\nyou "
        assert "".join(event["delta"] for event in of_kind(events, "response.output_text.delta")) == said
        assert events[-1]["response"]["output"][0]["content"] == [{"type": "output_text", "text": said}]


async def test_audio_is_chunks_of_100_ms_that_sound(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.user("x" * 20)
        chunks = [
            base64.b64decode(event["delta"])
            for event in of_kind(await client.respond(), "response.output_audio.delta")
        ]
        assert len(chunks) == 20  # 30 characters at 15 a second
        assert {len(chunk) for chunk in chunks} == {4800}
        # The voice pauses, as voices do.
        assert sum(max(memoryview(chunk).cast("h")) > 1000 for chunk in chunks) >= 16


@pytest.mark.parametrize(("pace", "seconds"), [(1.0, 2.0), (4.0, 0.5), (0, 0.0)])
async def test_the_pace(autojump_clock: Any, pace: float, seconds: float) -> None:
    async with connected(pace=pace) as client:
        await client.user("x" * 20)
        before = trio.current_time()
        await client.respond()
        assert trio.current_time() - before == pytest.approx(seconds)


async def test_speed_shortens_speech(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(audio={"output": {"speed": 1.5}})
        await client.user("x" * 20)
        assert len(of_kind(await client.respond(), "response.output_audio.delta")) == 14


async def test_one_active_response(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.user("hello")
        await client.send("response.create")
        created = await client.receive()
        await client.send("response.create", event_id="second")
        events = await client.until("response.done")
        (error,) = of_kind(events, "error")
        assert error["error"]["code"] == "conversation_already_has_active_response"
        assert created["response"]["id"] in error["error"]["message"]
        assert error["error"]["event_id"] == "second"
        await client.send("response.create")
        await client.until("response.done")
        assert len(of_kind(client.events, "response.created")) == 2


async def test_the_next_response_may_start_at_once(autojump_clock: Any) -> None:
    async with connected() as client:
        for _ in range(20):
            await client.send("response.create")
            await client.until("response.done")
        assert not of_kind(client.events, "error")


@pytest.mark.parametrize("named", [True, False])
async def test_cancel(autojump_clock: Any, named: bool) -> None:
    async with connected(pace=1.0) as client:
        await client.user("hello " * 20)
        await client.send("response.create")
        response_id = (await client.receive())["response"]["id"]
        for _ in range(5):
            await client.until("response.output_audio.delta")
        await client.send("response.cancel", **({"response_id": response_id} if named else {}))
        events = await client.until("response.done")
        assert len(of_kind(events, "response.output_audio.delta")) <= 1
        response = events[-1]["response"]
        assert response["status"] == "cancelled"
        assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        (item,) = response["output"]
        assert item["status"] == "incomplete"
        assert "You said: hello ".startswith(item["content"][0]["transcript"][:10])
        check_usage(response["usage"])
        assert response["usage"]["output_token_details"]["audio_tokens"] in (10, 12)
        await client.until("rate_limits.updated")
        assert (await client.refused("response.cancel"))["code"] == "response_cancel_not_active"


async def test_cancelling_at_once(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.send("response.create")
        await client.send("response.cancel")
        await client.send("response.create")
        await client.until("response.done")
        assert (await client.until("response.done"))[-1]["response"]["status"] == "completed"
        assert not of_kind(client.events, "error")


async def test_nothing_to_cancel(autojump_clock: Any) -> None:
    async with connected() as client:
        for fields in ({}, {"response_id": "resp_no"}):
            error = await client.refused("response.cancel", **fields)
            assert error["code"] == "response_cancel_not_active"
            assert error["message"] == "Cancellation failed: no active response found"


async def test_out_of_band_responses_run_beside(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.user("hello")
        await client.send("response.create")
        (main,) = [e["response"]["id"] for e in await client.until("response.created")]
        for topic in ("a", "b"):
            asked = [message("user", {"type": "input_text", "text": topic})]
            await client.send(
                "response.create",
                response={"conversation": "none", "metadata": {"topic": topic}, "input": asked},
            )
        for _ in range(3):
            await client.until("response.done")
        done = {e["response"]["id"]: e["response"] for e in of_kind(client.events, "response.done")}
        assert not of_kind(client.events, "error")
        assert done.pop(main)["conversation_id"] is not None
        assert sorted(r["metadata"]["topic"] for r in done.values()) == ["a", "b"]
        for response in done.values():
            assert response["conversation_id"] is None
            said = response["output"][0]["content"][0]["transcript"]
            assert said == f"You said: {response['metadata']['topic']}"
            item_id = response["output"][0]["id"]
            error = await settled(client, item_id)
            assert error["error"]["code"] == "item_retrieve_invalid_item_id"


async def settled(client: Client, item_id: str) -> dict[str, Any]:
    """The answer to a retrieve, past what still comes of earlier responses."""
    await client.send("conversation.item.retrieve", item_id=item_id)
    while (event := await client.receive())["type"] == "rate_limits.updated":
        pass
    return event


async def test_an_out_of_band_response_is_cancelled_by_its_id(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.user("hello")
        await client.send("response.create", response={"conversation": "none"})
        created = await client.receive()
        assert (await client.until("response.content_part.added"))[-1]["type"]
        await client.send("response.cancel", event_id="unnamed")
        (error,) = of_kind(await client.until("error"), "error")
        assert error["error"]["code"] == "response_cancel_not_active"
        await client.send("response.cancel", response_id=created["response"]["id"])
        assert (await client.until("response.done"))[-1]["response"]["status"] == "cancelled"
        assert not of_kind(client.events, "conversation.item.added")[1:]


async def test_input_chooses_the_context(autojump_clock: Any) -> None:
    async with connected() as client:
        first = await client.user("first")
        await client.user("second")

        async def said(**params: Any) -> str:
            response = (await client.respond(conversation="none", output_modalities=["text"], **params))[-1]
            return response["response"]["output"][0]["content"][0]["text"]

        assert await said() == "You said: second"
        assert await said(input=[{"type": "item_reference", "id": first["id"]}]) == "You said: first"
        assert (await said(input=[])).startswith("I am the simulated model")
        error = await client.refused(
            "response.create", response={"input": [{"type": "item_reference", "id": "no"}]}
        )
        assert error["param"] == "response.input[0].id"
        bad = message("user", {"type": "input_image", "image_url": "no"})
        error = await client.refused("response.create", response={"input": [bad]})
        assert error["param"] == "response.input[0].content[0].image_url"


@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_max_output_tokens(autojump_clock: Any, modality: str) -> None:
    async with connected() as client:
        response = await client.say("hello " * 50, max_output_tokens=12, output_modalities=[modality])
        assert response["status"] == "incomplete"
        assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert response["output"][0]["status"] == "incomplete"
        assert 8 <= response["usage"]["output_tokens"] <= 12
        assert response["max_output_tokens"] == 12
        check_usage(response["usage"])


async def test_a_response_overrides_the_session_for_itself(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(instructions="Be kind.", max_output_tokens=4000)
        response = await client.say(
            "hello",
            instructions="Be brief, and " * 10,
            output_modalities=["text"],
            metadata={"k": "v"},
            max_output_tokens="inf",
            audio={"output": {"voice": {"id": "voice_1"}}},
        )
        assert response["output_modalities"] == ["text"]
        assert response["metadata"] == {"k": "v"}
        assert response["max_output_tokens"] == "inf"
        assert response["audio"]["output"]["voice"] == "voice_1"
        plain = await client.say("hello")
        assert (plain["output_modalities"], plain["metadata"]) == (["audio"], None)
        assert (plain["max_output_tokens"], plain["audio"]["output"]["voice"]) == (4000, "marin")


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"metadata": {str(n): "" for n in range(17)}}, "response.metadata"),
        ({"conversation": "conv_1"}, "response.conversation"),
        ({"max_output_tokens": 0}, "response.max_output_tokens"),
    ],
)
async def test_wrong_parameters(autojump_clock: Any, response: dict[str, Any], param: str) -> None:
    async with connected() as client:
        error = await client.refused("response.create", response=response)
        assert (error["code"], error["param"]) == ("invalid_value", param)


async def test_only_what_is_new_is_answered(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.say("hello")
        await client.user("one")
        await client.item(
            message("user", {"type": "input_audio", "audio": base64.b64encode(bytes(57600)).decode()})
        )
        await client.item(message("system", {"type": "input_text", "text": "Be brief."}))
        response = (await client.respond(output_modalities=["text"]))[-1]["response"]
        said = "You said: one I heard 1.2 seconds of audio."
        assert response["output"][0]["content"][0]["text"] == said
