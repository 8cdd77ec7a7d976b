"""How responses end, and what they cost when they end badly."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.sim.kit import check_usage, connected, kinds, message, of_kind, tool

AT_NO_COST = (
    "rate_limit_exceeded",
    "inference_rate_limit_exceeded",
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "account_deactivated",
)


@pytest.mark.parametrize("code", AT_NO_COST)
async def test_a_response_that_fails_before_it_begins(autojump_clock: Any, code: str) -> None:
    async with connected() as client:
        await client.user(f"please fail {code}")
        events = await client.respond()
        assert kinds(events) == ["response.created", "response.done"]
        response = events[-1]["response"]
        assert (response["status"], response["status_details"]["type"]) == ("failed", "failed")
        assert response["status_details"]["error"]["code"] == code
        assert (response["output"], response["usage"]["total_tokens"]) == ([], 0)
        assert not of_kind(client.events, "error")
        assert (await client.say("hello"))["status"] == "completed"


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [("server_error", "failed", None), ("content_filter", "incomplete", "content_filter")],
)
async def test_a_response_that_is_cut_in_the_middle(
    autojump_clock: Any, modality: str, code: str, status: str, reason: str | None
) -> None:
    async with connected() as client:
        words = f"a story of some length, and then fail {code}"
        response = await client.say(words, output_modalities=[modality])
        assert response["status"] == status
        details = response["status_details"]
        assert (details["type"], details.get("reason")) == (status, reason)
        assert details.get("error", {}).get("code") == (None if reason else code)
        (item,) = response["output"]
        said = item["content"][0]["transcript" if modality == "audio" else "text"]
        assert item["status"] == "incomplete"
        assert f"You said: {words}".startswith(said)
        assert len(words) // 3 < len(said) < len(words)
        check_usage(response["usage"])
        assert response["usage"]["output_tokens"] > 0


async def test_words_that_are_no_failure(autojump_clock: Any) -> None:
    async with connected() as client:
        for words in ("fail better", "failure server_error", "do not fail"):
            assert (await client.say(words))["status"] == "completed"


async def test_a_cancelled_response_is_cancelled_whatever_it_would_have_become(autojump_clock: Any) -> None:
    async with connected(pace=1.0) as client:
        await client.user("a story of some length, and then fail server_error")
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.send("response.cancel")
        response = (await client.until("response.done"))[-1]["response"]
        assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}


async def test_tokens_a_minute(autojump_clock: Any) -> None:
    async with connected(tokens_per_minute=600) as client:
        await client.user("a" * 1600)
        first = (await client.respond(output_modalities=["text"]))[-1]["response"]
        assert first["status"] == "completed"
        limits = {each["name"]: each for each in client.events[-1]["rate_limits"]}
        assert limits["tokens"]["remaining"] == 0
        assert limits["tokens"]["reset_seconds"] == 60
        refused = (await client.respond(output_modalities=["text"]))[-1]["response"]
        assert refused["status"] == "failed"
        assert refused["status_details"]["error"]["code"] == "inference_rate_limit_exceeded"
        assert not of_kind(client.events, "error")
        await trio.sleep(60)  # what was owed is paid, and the conversation of 800 tokens is still too much
        assert (await client.respond())[-1]["response"]["status"] == "failed"
        await trio.sleep(60)
        short = [message("user", {"type": "input_text", "text": "b" * 400})]
        assert (await client.respond(input=short))[-1]["response"]["status"] == "completed"


async def test_requests_a_minute(autojump_clock: Any) -> None:
    async with connected(requests_per_minute=2) as client:
        statuses = [(await client.say("x"))["status"] for _ in range(3)]
        assert statuses == ["completed", "completed", "failed"]
        done = of_kind(client.events, "response.done")[-1]["response"]
        assert done["status_details"]["error"]["code"] == "rate_limit_exceeded"
        (requests, tokens) = client.events[-1]["rate_limits"]
        assert (requests["remaining"], requests["reset_seconds"]) == (0, 60)
        assert (tokens["limit"], tokens["remaining"]) == (40_000, 40_000)
        await trio.sleep(30)
        assert (await client.say("x"))["status"] == "completed"


async def test_a_preamble_is_a_message_of_its_own(autojump_clock: Any) -> None:
    async with connected() as client:
        two = await client.say("one moment, tell me")
        texts = [item["content"][0]["transcript"] for item in two["output"]]
        assert texts == ["One moment.", "You said: one moment, tell me"]
        assert len({item["id"] for item in two["output"]}) == 2
        calls = await client.say("One moment and call dice", tools=[tool("dice")])
        assert [item["type"] for item in calls["output"]] == ["message", "function_call"]
        indices = [e["output_index"] for e in of_kind(client.events, "response.output_item.done")]
        assert indices == [0, 1, 0, 1]


async def test_calls_one_by_one(autojump_clock: Any) -> None:
    tools = [tool("dice"), tool("clock")]
    async with connected() as client:
        both = await client.say("call dice, call clock", tools=tools)
        assert [item["name"] for item in both["output"]] == ["dice", "clock"]
        one = await client.say("call dice, call clock", tools=tools, parallel_tool_calls=False)
        assert [item["name"] for item in one["output"]] == ["dice"]


@pytest.mark.parametrize(("effort", "tokens"), [("minimal", 8), ("xhigh", 128)])
async def test_reasoning_is_counted_once_as_text(autojump_clock: Any, effort: str, tokens: int) -> None:
    async with connected(model="gpt-realtime-2") as client:
        plain = await client.say("hello", output_modalities=["text"])
        asked = [message("user", {"type": "input_text", "text": "hello"})]
        events = await client.respond(
            input=asked, conversation="none", output_modalities=["text"], reasoning={"effort": effort}
        )
        usage = events[-1]["response"]["usage"]
        check_usage(usage)
        written = plain["usage"]["output_tokens"]
        assert usage["output_token_details"] == {"text_tokens": written + tokens, "audio_tokens": 0}
        # It is not read again.
        before = plain["usage"]["input_tokens"] + written
        assert (await client.respond())[-1]["response"]["usage"]["input_tokens"] == before


async def test_reasoning_may_use_up_everything(autojump_clock: Any) -> None:
    async with connected() as client:
        response = await client.say("hello", reasoning={"effort": "xhigh"}, max_output_tokens=100)
        assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
        assert (response["output"], response["usage"]["output_tokens"]) == ([], 100)


async def test_models_differ(autojump_clock: Any) -> None:
    async with connected(model="gpt-realtime-1.5") as client:
        for response, param in (
            ({"reasoning": {"effort": "low"}}, "response.reasoning"),
            ({"max_output_tokens": 4097}, "response.max_output_tokens"),
        ):
            error = await client.refused("response.create", response=response)
            assert (error["code"], error["param"]) == ("invalid_value", param)
        ratio = {
            "type": "retention_ratio",
            "retention_ratio": 1,
            "token_limits": {"post_instructions": 28_673},
        }
        for session, param in (
            ({"reasoning": {"effort": "low"}}, "session.reasoning"),
            ({"truncation": ratio}, "session.truncation.token_limits.post_instructions"),
        ):
            error = await client.refused("session.update", session={"type": "realtime", **session})
            assert (error["code"], error["param"]) == ("invalid_value", param)
    async with connected(model="gpt-realtime-2.1") as client:
        assert (await client.update(max_output_tokens=32_000, reasoning={"effort": "low"}))["session"]
