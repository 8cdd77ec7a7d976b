from __future__ import annotations

import base64
from typing import Any

from tests.sim.kit import check_usage, connected, message, png, silence


async def test_tokens_of_every_kind(autojump_clock: Any) -> None:
    audio = base64.b64encode(silence(1250)).decode()
    async with connected() as client:
        await client.update(instructions="i" * 40)
        await client.item(
            message(
                "user",
                {"type": "input_text", "text": "t" * 9},
                {"type": "input_audio", "audio": audio},
                {"type": "input_image", "image_url": png(513, 512)},
                {"type": "input_image", "image_url": png(2000, 2000), "detail": "low"},
            )
        )
        first = (await client.respond())[-1]["response"]
        usage = first["usage"]
        check_usage(usage)
        assert usage["input_token_details"] == {
            "text_tokens": 10 + 3,
            "audio_tokens": 13,
            "image_tokens": 85 + 2 * 170 + 85,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        }
        said = first["output"][0]["content"][0]["transcript"]
        written = usage["output_token_details"]
        assert written["text_tokens"] == -(-len(said) // 4)
        assert written["audio_tokens"] == -(-len(said) * 10 // 15) * 2  # chunks of 100 ms, 2 tokens each

        # The whole conversation is read again: the answer too, and what was shared comes from the cache.
        second = (await client.respond())[-1]["response"]["usage"]
        check_usage(second)
        assert second["input_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert second["input_token_details"]["cached_tokens"] == usage["input_tokens"] // 64 * 64


async def test_the_cache_is_lost_with_the_instructions(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(instructions="i" * 4000)
        await client.say("hello")
        warm = await client.say("hello")
        assert warm["usage"]["input_token_details"]["cached_tokens"] == 960
        await client.update(instructions="j" * 4000)
        cold = await client.say("hello")
        assert cold["usage"]["input_token_details"]["cached_tokens"] == 0


async def test_a_deleted_item_shortens_the_cached_prefix(autojump_clock: Any) -> None:
    async with connected() as client:
        for name in "abc":
            await client.item(message("user", {"type": "input_text", "text": name * 400}, id=name))
        await client.respond()
        await client.ask("conversation.item.delete", item_id="b")
        usage = (await client.respond())[-1]["response"]["usage"]
        assert usage["input_token_details"]["cached_tokens"] == 64
        check_usage(usage)


async def test_tools_and_calls_are_text(autojump_clock: Any) -> None:
    async with connected() as client:
        response = await client.say("call! dice {}")
        assert response["usage"]["output_token_details"] == {"text_tokens": 1 + 1, "audio_tokens": 0}
        (call,) = response["output"]
        await client.item({"type": "function_call_output", "call_id": call["call_id"], "output": "o" * 40})
        after = (await client.respond())[-1]["response"]["usage"]
        assert after["input_tokens"] == response["usage"]["total_tokens"] + 10
