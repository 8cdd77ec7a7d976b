"""Every server event of the GA protocol that a WebSocket session can see is sent by some conversation."""

from __future__ import annotations

from typing import Any

from tests.sim.kit import EVENT_CLASSES, Client, connected, message, silence, tone, tool

# Of WebRTC and SIP calls alone: what the service plays to the caller, and the keys the caller presses.
OF_CALLS = {
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
    "output_audio_buffer.cleared",
    "input_audio_buffer.dtmf_event_received",
}


async def talk(client: Client) -> None:
    await client.update(audio={"input": {"transcription": {"model": "whisper-1"}}}, tools=[tool("dice")])
    await client.append(tone(600) + silence(800))
    await client.until("rate_limits.updated")
    await client.say("hello", output_modalities=["text"])
    (call,) = (await client.say("call dice"))["output"]
    await client.item({"type": "function_call_output", "call_id": call["call_id"], "output": "4"})
    (spoken,) = (await client.respond())[-1]["response"]["output"]
    await client.ask("conversation.item.truncate", item_id=spoken["id"], content_index=0, audio_end_ms=100)
    await client.ask("conversation.item.retrieve", item_id=spoken["id"])
    await client.ask("conversation.item.delete", item_id=spoken["id"])
    await client.ask("input_audio_buffer.clear")
    await client.refused("response.cancel")


async def use_mcp(client: Client) -> None:
    def server(label: str, host: str) -> dict[str, Any]:
        return {
            "type": "mcp",
            "server_label": label,
            "server_url": f"https://{host}",
            "require_approval": "never",
        }

    await client.update(tools=[server("there", "example.test"), server("gone", "mcp.invalid")])
    await client.until("mcp_list_tools.failed")
    await client.say("call echo {}")
    await client.respond()
    await client.say('call echo {"fail": "no"}')


async def be_transcribed(client: Client) -> None:
    for transcription in (
        {"model": "gpt-4o-transcribe-diarize"},
        {"model": "gpt-4o-transcribe", "prompt": "fail transcription"},
    ):
        await client.update(audio={"input": {"transcription": transcription, "turn_detection": None}})
        await client.append(tone(600))
        await client.send("input_audio_buffer.commit")
        ending = "failed" if "prompt" in transcription else "completed"
        await client.until(f"conversation.item.input_audio_transcription.{ending}")


async def be_silent(client: Client) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    await client.update(audio={"input": {"turn_detection": detection}})
    await client.say("hello")
    await client.append(silence(20_000))
    await client.until("rate_limits.updated")


async def be_old(client: Client) -> None:
    assert (await client.receive())["type"] == "conversation.created"
    user = message("user", {"type": "input_text", "text": "hello"})
    await client.send("conversation.item.create", item=user)
    await client.until("conversation.item.done")
    added, created, _ = client.events[-3:]
    assert created["type"] == "conversation.item.created"
    assert (added["item"], added["previous_item_id"]) == (created["item"], created["previous_item_id"])


async def test_every_event_is_sent(autojump_clock: Any) -> None:
    seen: set[str] = set()
    for conversation in (talk, use_mcp, be_transcribed, be_silent, be_old):
        async with connected(legacy_events=conversation is be_old) as client:
            await conversation(client)
        seen |= {event["type"] for event in client.events}
    assert len(EVENT_CLASSES) == 46
    assert set(EVENT_CLASSES) - seen == OF_CALLS
