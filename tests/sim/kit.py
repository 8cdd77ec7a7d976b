"""A client of the simulated model that believes no event until the official SDK's types agree with it."""

from __future__ import annotations

import base64
import math
import struct
import types
import typing
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, Union

import msgspec
import pydantic
import trio
from openai.types.realtime import (
    RealtimeServerEvent,
    RealtimeSessionCreateRequest,
    RealtimeSessionCreateResponse,
    RealtimeTranscriptionSessionCreateResponse,
)

from rtpipe.sim import DEFAULT_MODEL, SimOptions, run_session


def _members(union: Any) -> tuple[Any, ...]:
    """The plain types of a union, however it is wrapped."""
    while typing.get_origin(union) is typing.Annotated:
        union = typing.get_args(union)[0]
    if typing.get_origin(union) in (Union, types.UnionType):
        return tuple(member for arg in typing.get_args(union) for member in _members(arg))
    return (union,)


EVENT_CLASSES: dict[str, type[pydantic.BaseModel]] = {
    typing.get_args(cls.model_fields["type"].annotation)[0]: cls for cls in _members(RealtimeServerEvent)
}


def check_event(event: dict[str, Any]) -> None:
    """Refuse an event with a field the SDK does not know, without one it requires, or with a wrong type."""
    cls = EVENT_CLASSES[event["type"]]
    if event.get("session", {}).get("type") == "transcription":
        problems = _problems(event["session"], RealtimeTranscriptionSessionCreateResponse, "session")
    elif "session" in event:
        # The SDK types the session of events as the request, which lacks what the service adds to it (id,
        # object, expires_at); the response type has those, and lacks a newer request field.
        only_asked = set(RealtimeSessionCreateRequest.model_fields) - set(
            RealtimeSessionCreateResponse.model_fields
        )
        session = {key: value for key, value in event["session"].items() if key not in only_asked}
        problems = _problems(session, RealtimeSessionCreateResponse, "session")
        asked = {key: value for key, value in event["session"].items() if key in only_asked}
        problems += _problems({"type": "realtime", **asked}, RealtimeSessionCreateRequest, "session")
    else:
        problems = _problems(event, cls, event["type"])
    assert not problems, problems
    cls.model_validate(event)


def _problems(value: Any, annotation: Any, path: str) -> list[str]:
    """What is wrong with a JSON value against a type; of a union, the complaints of the nearest member."""
    members = _members(annotation)
    if len(members) > 1:
        return min((_problems(value, member, path) for member in members), key=len)
    (kind,) = members
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return []
    if origin is Literal:
        return [] if value in args else [f"{path}: {value!r} is none of {args}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        return [
            bad for index, each in enumerate(value) for bad in _problems(each, args[0], f"{path}[{index}]")
        ]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{path}: not an object"]
        return [bad for key, each in value.items() for bad in _problems(each, args[1], f"{path}.{key}")]
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return _model_problems(value, kind, path)
    right = {float: (int, float), int: int, str: str, bool: bool, type(None): type(None)}[kind]
    if isinstance(value, right) and (kind is bool or not isinstance(value, bool)):
        return []
    return [f"{path}: {value!r:.80} is not {kind.__name__}"]


def _model_problems(value: Any, model: type[pydantic.BaseModel], path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    problems = [f"{path}.{key}: unknown to {model.__name__}" for key in value.keys() - fields.keys()]
    for key, field in fields.items():
        if key in value:
            problems += _problems(value[key], field.annotation, f"{path}.{key}")
        elif field.is_required():
            problems.append(f"{path}.{key}: missing")
    return problems


class Client:
    """`events` keeps everything received, in order."""

    def __init__(
        self, outgoing: trio.MemorySendChannel[str], incoming: trio.MemoryReceiveChannel[str]
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self.events: list[dict[str, Any]] = []

    async def send_text(self, text: str) -> None:
        with trio.fail_after(600):
            await self._outgoing.send(text)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.send_text(msgspec.json.encode({"type": kind, **fields}).decode())

    async def receive(self) -> dict[str, Any]:
        with trio.fail_after(600):
            event = msgspec.json.decode(await self._incoming.receive())
        check_event(event)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Everything up to and with the next event of this type."""
        seen = [await self.receive()]
        while seen[-1]["type"] != kind:
            seen.append(await self.receive())
        return seen

    async def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Send something that has one direct answer, and return that."""
        await self.send(kind, **fields)
        return await self.receive()

    async def update(self, **session: Any) -> dict[str, Any]:
        return await self.ask("session.update", session={"type": "realtime", **session})

    async def refused(self, kind: str, **fields: Any) -> dict[str, Any]:
        event = await self.ask(kind, event_id="mine", **fields)
        assert event["type"] == "error", event
        assert event["error"]["event_id"] == "mine"
        assert event["error"]["type"] == "invalid_request_error"
        return event["error"]

    async def item(self, item: dict[str, Any], **fields: Any) -> dict[str, Any]:
        added = await self.ask("conversation.item.create", item=item, **fields)
        done = await self.receive()
        assert [added["type"], done["type"]] == ["conversation.item.added", "conversation.item.done"]
        return done["item"]

    async def user(self, text: str) -> dict[str, Any]:
        return await self.item(message("user", {"type": "input_text", "text": text}))

    async def respond(self, **response: Any) -> list[dict[str, Any]]:
        """A response from created to done; rate_limits.updated is received too."""
        await self.send("response.create", **({"response": response} if response else {}))
        events = await self.until("response.done")
        await self.until("rate_limits.updated")
        return events

    async def say(self, text: str, **response: Any) -> dict[str, Any]:
        """The `response` of response.done to a user's text."""
        await self.user(text)
        return (await self.respond(**response))[-1]["response"]

    async def append(self, pcm: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())


@asynccontextmanager
async def connected(
    *,
    model: str = DEFAULT_MODEL,
    bound: dict[str, Any] | None = None,
    buffer: float = math.inf,
    **options: Any,
) -> AsyncIterator[Client]:
    """A client whose session.created has been read. Nothing waits, unless a pace is given. `buffer`: how many
    events the model may send before they are read. `bound`: what the session begins with."""
    to_sim, from_client = trio.open_memory_channel[str](0)
    to_client, from_sim = trio.open_memory_channel[str](buffer)
    async with trio.open_nursery() as nursery:
        chosen = SimOptions(**{"pace": 0, "seed": 7, **options})

        one_at_a_time = trio.CapacityLimiter(1)

        async def send(text: str) -> None:
            one_at_a_time.acquire_nowait()  # WouldBlock: two tasks send at once
            try:
                await to_client.send(text)
            finally:
                one_at_a_time.release()

        async def session() -> None:
            async with from_client, to_client:
                await run_session(from_client.receive, send, chosen, model=model, bound=bound)

        nursery.start_soon(session)
        client = Client(to_sim, from_sim)
        assert (await client.receive())["type"] == "session.created"
        yield client
        to_sim.close()
        from_sim.close()


def message(role: str, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content), **fields}


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    """A function tool; each parameter is the JSON schema of a required property."""
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    return {"type": "function", "name": name, "description": f"The {name}.", "parameters": schema}


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """The types in order, runs of one type folded into one."""
    return [e["type"] for i, e in enumerate(events) if i == 0 or events[i - 1]["type"] != e["type"]]


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def silence(ms: int) -> bytes:
    return bytes(48 * ms)


def tone(ms: int, amplitude: int = 8000) -> bytes:
    """PCM16 mono 24 kHz; its root mean square is about 0.7 of the amplitude."""
    samples = (int(amplitude * math.sin(2 * math.pi * 200 * n / 24000)) for n in range(24 * ms))
    return b"".join(struct.pack("<h", sample) for sample in samples)


def data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png(width: int, height: int) -> str:
    """The data URI of a grey PNG."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(width)) * height)
    return data_uri(
        "png",
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""),
    )


def jpeg(width: int, height: int) -> str:
    """The data URI of the headers of a JPEG: what a reader of sizes reads."""
    app0 = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    frame = (
        b"\xff\xc0\x00\x11\x08"
        + struct.pack(">HH", height, width)
        + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    )
    return data_uri("jpeg", b"\xff\xd8" + app0 + frame + b"\xff\xd9")


def check_usage(usage: dict[str, Any]) -> None:
    """Everything adds up, and what was cached is part of what was read."""
    read, written = usage["input_token_details"], usage["output_token_details"]
    from_cache = read["cached_tokens_details"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == sum(read[f"{kind}_tokens"] for kind in ("text", "audio", "image"))
    assert usage["output_tokens"] == written["text_tokens"] + written["audio_tokens"]
    assert read["cached_tokens"] == sum(from_cache.values())
    assert read["cached_tokens"] % 64 == 0
    assert all(from_cache[kind] <= read[kind] for kind in from_cache)
