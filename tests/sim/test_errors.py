"""Every error that the documentation and recorded sessions know, and that a client can provoke in a session.

(Those of a handshake are in test_server.py and beside it: they need a socket.)"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.sim.kit import Client, connected, message

Provoke = Callable[[Client], Awaitable[dict[str, Any]]]


def sends(kind: str, **fields: Any) -> Provoke:
    async def provoke(client: Client) -> dict[str, Any]:
        return await client.refused(kind, **fields)

    return provoke


async def second_response(client: Client) -> dict[str, Any]:
    await client.user("a long story, to speak over")
    await client.send("response.create")
    await client.until("response.output_audio.delta")
    await client.send("response.create", event_id="mine")
    error = (await client.until("error"))[-1]["error"]
    await client.until("rate_limits.updated")
    return error


async def other_voice(client: Client) -> dict[str, Any]:
    await client.say("hello")
    session = {"type": "realtime", "tools": [], "audio": {"output": {"voice": "ash"}}}
    return await client.refused("session.update", session=session)


async def other_voice_for_once(client: Client) -> dict[str, Any]:
    await client.say("hello")
    return await client.refused("response.create", response={"audio": {"output": {"voice": "ash"}}})


async def same_item_twice(client: Client) -> dict[str, Any]:
    user = message("user", {"type": "input_text", "text": "x"}, id="x")
    await client.item(user)
    return await client.refused("conversation.item.create", item=user)


async def past_the_end(client: Client) -> dict[str, Any]:
    (item,) = (await client.say("hello"))["output"]
    return await client.refused(
        "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=55960
    )


async def deleted(client: Client) -> dict[str, Any]:
    (item,) = (await client.say("hello"))["output"]
    await client.ask("conversation.item.delete", item_id=item["id"])
    return await client.refused(
        "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=0
    )


async def too_long(client: Client) -> dict[str, Any]:
    await client.update(truncation="disabled")
    await client.user("x" * 4 * 96_001)
    return await client.refused("response.create")


def fails_with(code: str) -> Provoke:
    """An error that comes in response.done, not in an event of its own."""

    async def provoke(client: Client) -> dict[str, Any]:
        response = await client.say(f"fail {code}")
        assert response["status"] == "failed"
        return {"param": None, **response["status_details"]["error"]}

    return provoke


USER = message("user", {"type": "input_text", "text": "x"})
PROVOKED: list[tuple[str | None, str | None, Provoke]] = [
    ("conversation_already_has_active_response", None, second_response),
    ("response_cancel_not_active", None, sends("response.cancel")),
    ("response_cancel_not_active", None, sends("response.cancel", response_id="resp_no")),
    (
        "unknown_parameter",
        "session.temperature",
        sends("session.update", session={"type": "realtime", "temperature": 1}),
    ),
    ("unknown_parameter", "response.voice", sends("response.create", response={"voice": "ash"})),
    (
        "missing_required_parameter",
        "session.type",
        sends("session.update", session={"instructions": "x"}),
    ),
    ("missing_required_parameter", "item_id", sends("conversation.item.retrieve")),
    ("invalid_value", "type", sends("session.upgrade")),
    (
        "invalid_value",
        "session.output_modalities",
        sends("session.update", session={"type": "realtime", "output_modalities": ["text", "audio"]}),
    ),
    ("cannot_update_voice", "session.audio.output.voice", other_voice),
    ("cannot_update_voice", "response.audio.output.voice", other_voice_for_once),
    ("input_audio_buffer_commit_empty", None, sends("input_audio_buffer.commit")),
    ("item_create_duplicate_item_id", "item.id", same_item_twice),
    (
        "item_create_invalid_previous_item_id",
        "previous_item_id",
        sends("conversation.item.create", item=USER, previous_item_id="no"),
    ),
    ("item_retrieve_invalid_item_id", "item_id", sends("conversation.item.retrieve", item_id="no")),
    ("item_delete_invalid_item_id", "item_id", sends("conversation.item.delete", item_id="no")),
    ("item_truncate_invalid_item_id", "item_id", deleted),
    (None, "audio_end_ms", past_the_end),
    ("conversation_too_long", None, too_long),
    ("insufficient_quota", None, fails_with("insufficient_quota")),
    ("credit_balance_exhausted", None, fails_with("credit_balance_exhausted")),
    ("billing_hard_limit_reached", None, fails_with("billing_hard_limit_reached")),
    ("account_deactivated", None, fails_with("account_deactivated")),
    ("inference_rate_limit_exceeded", None, fails_with("inference_rate_limit_exceeded")),
    ("rate_limit_exceeded", None, fails_with("rate_limit_exceeded")),
    ("server_error", None, fails_with("server_error")),
]


@pytest.mark.parametrize(
    ("code", "param", "provoke"),
    PROVOKED,
    ids=[f"{code}-{provoke.__name__}-{n}" for n, (code, _, provoke) in enumerate(PROVOKED)],
)
async def test_every_error_can_be_provoked(
    autojump_clock: Any, code: str | None, param: str | None, provoke: Provoke
) -> None:
    async with connected(pace=1.0) as client:
        error = await provoke(client)
        assert (error["code"], error["param"]) == (code, param)
        assert error["message"]
        # The session goes on.
        assert (await client.update())["type"] == "session.updated"
