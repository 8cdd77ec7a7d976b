"""The items of a conversation: made, placed, found, cut."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .errors import ClientError, invalid_value
from .ids import Ids
from .images import Image, read_image
from .sound import PCM, Encoding

MAX_AUDIO_BYTES = 15 * 1024 * 1024  # of one event

_PARTS = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text",),  # clients cannot make assistant audio
}
_TEXT_FIELDS = ("name", "arguments", "output")
# Items of MCP have neither an object nor a status.
_PLAIN_ITEMS = ("message", "function_call", "function_call_output")


@dataclass
class Item:
    """`wire`: the item as events carry it, without audio data. `audio`, `images`: by content index.
    `encoding`: of all its audio. `dropped`: no longer read, because the conversation outgrew what may be
    read."""

    wire: dict[str, Any]
    audio: dict[int, bytearray] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    dropped: bool = False
    encoding: Encoding = PCM

    @property
    def id(self) -> str:
        return str(self.wire["id"])

    @property
    def speaker(self) -> str:
        """The role of a message, the type of any other item."""
        return str(self.wire.get("role", self.wire["type"]))

    def audio_ms(self) -> int:
        return sum(map(len, self.audio.values())) // self.encoding.bytes_per_ms

    def texts(self) -> list[str]:
        return [part["text"] for part in self.wire.get("content", ()) if "text" in part]

    def read_texts(self) -> list[str]:
        """What of the item the model reads as text; what a user said aloud is read as audio alone."""
        texts = self.texts() + [self.wire[key] for key in _TEXT_FIELDS if self.wire.get(key)]
        if self.speaker == "assistant":
            texts += [part.get("transcript") or "" for part in self.wire["content"]]
        if self.wire.get("tools"):
            texts.append(msgspec.json.encode(self.wire["tools"]).decode())
        return texts

    def content_key(self) -> Hashable:
        """Equal for items that read the same; but what sounds is told apart by its item."""
        pictures = tuple(
            (part["image_url"], part.get("detail"))
            for part in self.wire.get("content", ())
            if "image_url" in part
        )
        sound = (self.id, self.audio_ms()) if self.audio else None
        return self.speaker, tuple(self.read_texts()), sound, pictures

    def view(self, *, with_audio: bool = False) -> dict[str, Any]:
        """A copy to send; only conversation.item.retrieved carries audio data."""
        if "content" not in self.wire:
            return dict(self.wire)
        content = [dict(part) for part in self.wire["content"]]
        if with_audio:
            for index, pcm in self.audio.items():
                content[index]["audio"] = base64.b64encode(pcm).decode()
        return {**self.wire, "content": content}


def client_item(wire: dict[str, Any], ids: Ids, where: str, encoding: Encoding = PCM) -> Item:
    """An item from what a client sent; `where` is its path in the event, for errors. `encoding`: that of the
    session's input, which audio in items is in too."""
    item = Item({key: value for key, value in wire.items() if value is not None}, encoding=encoding)
    item.wire["id"] = wire.get("id") or ids.new("item")
    if wire["type"] in _PLAIN_ITEMS:
        item.wire |= {"object": "realtime.item", "status": "completed"}
    if wire["type"] == "message":
        item.wire["content"] = [
            _part(item, index, part, f"{where}.content[{index}]")
            for index, part in enumerate(wire["content"])
        ]
    elif wire["type"] == "function_call":
        item.wire["call_id"] = wire.get("call_id") or ids.new("call")
    return item


def _part(item: Item, index: int, part: dict[str, Any], where: str) -> dict[str, Any]:
    if part["type"] not in _PARTS[item.wire["role"]]:
        raise invalid_value(f"{where}.type", part["type"], _PARTS[item.wire["role"]])
    if part["type"] == "input_audio":
        item.audio[index] = bytearray(decode_audio(part["audio"], f"{where}.audio"))
        return {"type": "input_audio", "transcript": part.get("transcript")}
    if part["type"] == "input_image":
        image = read_image(part["image_url"])
        if image is None:
            raise ClientError(
                "invalid_value",
                "Invalid image: expected a base64 data URI of a PNG or JPEG.",
                f"{where}.image_url",
            )
        item.images[index] = image
    return part


def decode_audio(text: str, param: str) -> bytes:
    try:
        audio = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ClientError("invalid_value", "Invalid audio: expected base64-encoded bytes.", param) from None
    if len(audio) > MAX_AUDIO_BYTES:
        raise ClientError("invalid_value", "Invalid audio: more than 15 MiB in one event.", param)
    return audio


class Conversation:
    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.items: list[Item] = []

    def find(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id == item_id), None)

    def append(self, item: Item) -> str | None:
        """Put an item last; the id of the one before it."""
        previous = self.items[-1].id if self.items else None
        self.items.append(item)
        return previous

    def insert(self, item: Item, previous_item_id: str | None) -> str | None:
        """Place a client's item after another, first ("root") or last (None); the id of the one before it."""
        if self.find(item.id):
            raise ClientError(
                "item_create_duplicate_item_id",
                f"Error adding item: the item with id '{item.id}' already exists.",
                "item.id",
            )
        if item.wire["type"] == "function_call_output":
            self._check_call(item.wire["call_id"])
        if item.wire["type"] == "mcp_approval_response":
            self._check_approval(item.wire["approval_request_id"])
        if previous_item_id is None:
            return self.append(item)
        if previous_item_id == "root":
            self.items.insert(0, item)
            return None
        previous = self.find(previous_item_id)
        if previous is None:
            raise ClientError(
                "item_create_invalid_previous_item_id",
                f"Error adding item: the previous item with id '{previous_item_id}' does not exist.",
                "previous_item_id",
            )
        self.items.insert(self.items.index(previous) + 1, item)
        return previous_item_id

    def _check_call(self, call_id: str) -> None:
        if not any(
            item.wire.get("call_id") == call_id for item in self.items if item.speaker == "function_call"
        ):
            raise ClientError(
                "invalid_tool_call_id",
                f"Tool call ID '{call_id}' not found in conversation.",
                "item.call_id",
            )

    def _check_approval(self, request_id: str) -> None:
        request = self.find(request_id)
        if request is None or request.speaker != "mcp_approval_request":
            raise ClientError(
                "invalid_value",
                f"Approval request '{request_id}' not found in conversation.",
                "item.approval_request_id",
            )

    def named(self, item_id: str, verb: str) -> Item:
        """The item a client named; `verb`: delete, retrieve or truncate."""
        item = self.find(item_id)
        if item is None:
            raise ClientError(
                f"item_{verb}_invalid_item_id",
                f"Error: cannot {verb} item: the item with id '{item_id}' does not exist.",
                "item_id",
            )
        return item

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut what was not heard; its transcript goes too, since nobody knows which words remain."""
        item = self.named(item_id, "truncate")
        if item.speaker != "assistant":
            raise ClientError(
                "item_truncate_invalid_item_id", "Only assistant message items can be truncated.", "item_id"
            )
        if content_index not in item.audio:
            raise ClientError("invalid_value", "This content part holds no audio.", "content_index")
        pcm = item.audio[content_index]
        length_ms = len(pcm) // item.encoding.bytes_per_ms
        if audio_end_ms > length_ms:
            raise ClientError(
                None,
                f"Audio content of {length_ms}ms is already shorter than {audio_end_ms}ms",
                "audio_end_ms",
            )
        del pcm[audio_end_ms * item.encoding.bytes_per_ms :]
        item.wire["content"][content_index].pop("transcript", None)
