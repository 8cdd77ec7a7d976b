"""What is read and what of it is cached, computed again from nothing but the events."""

from __future__ import annotations

import base64
import math
import random
from typing import Any

import msgspec
import pytest

from tests.sim.kit import Client, check_usage, connected, message, png, silence, tone, tool

KINDS = ("text", "audio", "image")


def text(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


async def read_tokens(client: Client, count: int, size: int, **session: Any) -> list[int]:
    """The input tokens of a response after each of so many items of so many tokens; nothing is kept but
    these items, for every response is out of band."""
    if session:
        assert (await client.update(**session))["type"] == "session.updated"
    read = []
    for _ in range(count):
        await client.user("x" * 4 * size)
        done = (await client.respond(conversation="none", output_modalities=["text"]))[-1]["response"]
        check_usage(done["usage"])
        read.append(done["usage"]["input_tokens"])
    return read


def ratio(share: float, most: int | None = None) -> dict[str, Any]:
    limits = {"token_limits": {"post_instructions": most}} if most is not None else {}
    return {"type": "retention_ratio", "retention_ratio": share, **limits}


async def test_auto_drops_the_oldest_items(autojump_clock: Any) -> None:
    async with connected(model="gpt-realtime-mini") as client:
        read = await read_tokens(client, 5, 7_000, instructions="i" * 400)
        assert read == [7_100, 14_100, 21_100, 28_100, 28_100]  # of 28,672


async def test_the_newer_models_read_more(autojump_clock: Any) -> None:
    async with connected(model="gpt-realtime-2") as client:
        assert (await read_tokens(client, 4, 30_000))[-1] == 90_000  # of 96,000


async def test_a_retention_ratio_drops_more_at_once_and_less_often(autojump_clock: Any) -> None:
    async with connected() as client:
        read = await read_tokens(client, 9, 100, instructions="i" * 40, truncation=ratio(0.5, 400))
        assert read == [110, 210, 310, 410, 210, 310, 410, 210, 310]


async def test_what_was_dropped_stays_dropped_and_can_be_retrieved(autojump_clock: Any) -> None:
    async with connected() as client:
        await read_tokens(client, 5, 100, truncation=ratio(0.5, 400))
        await client.update(truncation="auto")
        usage = (await client.respond(conversation="none"))[-1]["response"]["usage"]
        assert usage["input_tokens"] == 200
        first = next(e["item"]["id"] for e in client.events if e["type"] == "conversation.item.done")
        retrieved = await client.ask("conversation.item.retrieve", item_id=first)
        assert retrieved["type"] == "conversation.item.retrieved"


async def test_a_truncation_spoils_the_cache(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.update(instructions="i" * 4 * 128, truncation=ratio(0.5, 640))
        cached = []
        for _ in range(6):
            await client.user("x" * 4 * 128)
            usage = (await client.respond(conversation="none"))[-1]["response"]["usage"]
            cached.append(usage["input_token_details"]["cached_tokens"])
        # The items here are all alike, so the two that are kept begin like earlier contexts did.
        assert cached == [0, 256, 384, 512, 640, 384]


@pytest.mark.parametrize("truncation", ["disabled", "auto"])
async def test_nothing_to_drop(autojump_clock: Any, truncation: str) -> None:
    """Disabled, nothing may be dropped; otherwise all but the newest item."""
    async with connected(model="gpt-realtime") as client:
        await client.update(truncation=truncation)
        await client.user("hello")
        await client.user("x" * 4 * 28_671)
        if truncation == "auto":
            assert (await client.respond())[-1]["response"]["status"] == "completed"
            await client.user("x" * 4 * 28_673)
        error = await client.refused("response.create")
        assert error["code"] == "conversation_too_long"
        assert error["message"] == "Conversation is too long to create a Response."
        small = [message("user", text("hello"))]
        done = (await client.respond(input=small))[-1]["response"]
        assert done["status"] == "completed"


async def test_a_turn_that_cannot_be_answered_is_told(autojump_clock: Any) -> None:
    async with connected(model="gpt-realtime") as client:
        await client.update(truncation="disabled")
        await client.user("x" * 4 * 28_670)
        await client.append(tone(600) + silence(800) + tone(600) + silence(800))
        for _ in range(2):
            error = (await client.until("error"))[-1]["error"]
            assert (error["code"], error["event_id"]) == ("conversation_too_long", None)


async def test_out_of_band_responses_leave_the_cache_alone(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.user("x" * 4 * 256)
        await client.respond(output_modalities=["text"])
        await client.respond(conversation="none", input=[message("user", text("aside"))])
        usage = (await client.respond())[-1]["response"]["usage"]
        assert usage["input_token_details"]["cached_tokens"] == 256


async def test_an_item_made_again_is_read_anew_only_if_it_reads_otherwise(autojump_clock: Any) -> None:
    async with connected() as client:
        await client.item(message("user", text("a" * 4 * 64), id="a"))
        await client.respond(conversation="none")
        for words, cached in (("a", 64), ("b", 0)):
            await client.ask("conversation.item.delete", item_id="a")
            await client.item(message("user", text(words * 4 * 64), id="a"))
            usage = (await client.respond(conversation="none"))[-1]["response"]["usage"]
            assert usage["input_token_details"]["cached_tokens"] == cached


class Reader:
    """Another implementation of the README's rules, fed with events alone."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str, list[tuple[str, int]]]] = []  # id, what it reads like, tokens
        self.head = ""
        self.before: list[list[Any]] = []

    def tokens_of(self, item: dict[str, Any], audio_ms: float) -> list[tuple[str, int]]:
        mine = item.get("role") == "assistant"
        texts = [item.get(key) or "" for key in ("name", "arguments", "output")]
        images = 0
        for part in item.get("content", []):
            texts.append(part.get("text") or "")
            texts.append((part.get("transcript") or "") if mine else "")
            if part["type"] == "input_image":
                width, height = (
                    int.from_bytes(base64.b64decode(part["image_url"][22:])[at : at + 4]) for at in (16, 20)
                )
                tiles = -(-width // 512) * -(-height // 512)
                images += 85 + (0 if part.get("detail") == "low" else 170 * tiles)
        words = sum(-(-len(each) // 4) for each in texts)
        return [("text", words), ("audio", math.ceil(audio_ms / (50 if mine else 100))), ("image", images)]

    def add(self, item: dict[str, Any], audio_ms: float) -> None:
        self.items.append(
            (item["id"], msgspec.json.encode([item, audio_ms]).decode(), self.tokens_of(item, audio_ms))
        )

    def expect(self) -> dict[str, Any]:
        context = [(self.head, [("text", -(-len(self.head) // 4))])] + [
            (key, cost) for _, key, cost in self.items
        ]
        stream = [kind for _, cost in context for kind, count in cost for _ in range(count)]
        shared = 0
        for earlier in self.before:
            same = 0
            while same < min(len(context), len(earlier)) and context[same] == earlier[same]:
                same += 1
            shared = max(shared, sum(count for _, cost in context[:same] for _, count in cost))
        self.before = [*self.before[-7:], context]
        cached = stream[: shared // 64 * 64]
        return {
            **{f"{kind}_tokens": stream.count(kind) for kind in KINDS},
            "cached_tokens": len(cached),
            "cached_tokens_details": {f"{kind}_tokens": cached.count(kind) for kind in KINDS},
        }


@pytest.mark.parametrize("seed", range(6))
async def test_usage_can_be_computed_from_what_was_said(autojump_clock: Any, seed: int) -> None:
    """A random conversation of every kind of item, of changes, deletes and truncations."""
    chance = random.Random(seed)
    reader = Reader()
    async with connected() as client:
        for _ in range(25):
            move = chance.choice(
                ["text", "audio", "image", "call", "respond", "respond", "delete", "truncate", "head"]
            )
            if move == "text":
                item = await client.user("w" * chance.randrange(400))
                reader.add(item, 0)
            elif move == "audio":
                ms = chance.randrange(20, 9000, 20)
                sound = {"type": "input_audio", "audio": base64.b64encode(silence(ms)).decode()}
                reader.add(await client.item(message("user", sound)), ms)
            elif move == "image":
                picture = {"type": "input_image", "image_url": png(chance.randrange(1, 1200), 9)}
                detail = chance.choice([{}, {"detail": "low"}, {"detail": "high"}])
                reader.add(await client.item(message("user", picture | detail, text("look"))), 0)
            elif move == "head":
                tools = chance.choice([[], [tool("dice")]])
                instructions = chance.choice(["", "i" * 600])
                await client.update(instructions=instructions, tools=tools)
                reader.head = instructions + (msgspec.json.encode(tools).decode() if tools else "")
            elif move == "delete" and reader.items:
                gone = chance.choice(reader.items)
                await client.ask("conversation.item.delete", item_id=gone[0])
                reader.items.remove(gone)
            elif move == "truncate":
                await cut(client, reader, chance)
            else:
                if move == "call":
                    reader.add(await client.user("call! dice {}"), 0)
                await respond(client, reader, chance)


async def respond(client: Client, reader: Reader, chance: random.Random) -> None:
    expected = reader.expect()
    events = await client.respond(output_modalities=[chance.choice(["audio", "text"])])
    response = events[-1]["response"]
    check_usage(response["usage"])
    assert response["usage"]["input_token_details"] == expected
    heard = sum(
        len(base64.b64decode(e["delta"])) for e in events if e["type"] == "response.output_audio.delta"
    )
    for item in response["output"]:
        reader.add(item, heard / 48)
    written = dict(reader.items[-1][2])
    assert response["usage"]["output_token_details"] == {
        "text_tokens": written["text"],
        "audio_tokens": written["audio"],
    }


async def cut(client: Client, reader: Reader, chance: random.Random) -> None:
    spoken = [entry for entry in reader.items if '"output_audio"' in entry[1] and dict(entry[2])["audio"] > 2]
    if not spoken:
        return
    entry = chance.choice(spoken)
    at_ms = chance.randrange(0, dict(entry[2])["audio"] * 50)
    await client.ask("conversation.item.truncate", item_id=entry[0], content_index=0, audio_end_ms=at_ms)
    retrieved = await client.ask("conversation.item.retrieve", item_id=entry[0])
    item = retrieved["item"]
    assert "transcript" not in item["content"][0]
    sound = len(base64.b64decode(item["content"][0].pop("audio"))) / 48
    place = reader.items.index(entry)
    reader.add(item, sound)
    reader.items[place] = reader.items.pop()
