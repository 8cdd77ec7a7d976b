"""Conversation items as a log keeps them, and as they are told to an upstream that knows nothing of them.

What a client may create: messages of text, images and (user) audio, function calls and their outputs; no
assistant message of audio. Source: openai-python 3.54.0 `ConversationItem`, OpenAI's realtime guide.
"""

from collections.abc import Container, Iterable
from typing import Any, Final

from rtpipe.protocol.catalogue import Client, Json, Server

ROOT: Final = "root"
"""What a `conversation.item.create` calls the place before the first item."""
NOT_HEARD: Final = "[speech without a transcript]"
"""Stands for what a caller said and nobody wrote down."""
CUT_OFF: Final = "…"
"""Stands for what the model said and nobody knows."""
NO_IMAGE: Final = "[an image that is no longer there]"

_TEXT_OF_ROLE: Final = {"assistant": "output_text"}
_SPEECH: Final = frozenset({"input_audio", "output_audio"})
_CALL: Final = "function_call"
_OUTPUT: Final = "function_call_output"
_CREATABLE: Final = frozenset({"message", _CALL, _OUTPUT})
_READ_ONLY: Final = frozenset({"object", "status"})


def replayable(item: Json) -> Json | None:
    """The item as another upstream can be told it: speech as the text of its transcript, everything else as
    it is. None for what no client may create (the items of MCP), and for a call that was not complete."""
    if item.get("type") not in _CREATABLE:
        return None
    if item.get("type") == _CALL and item.get("status") == "in_progress":
        return None
    told = {key: value for key, value in item.items() if key not in _READ_ONLY and value is not None}
    if item.get("type") == "message":
        role = str(item.get("role"))
        parts = [_as_text(part, role) for part in parts_of(item)]
        told["content"] = parts or [_text(role, CUT_OFF)]
    return told


def parts_of(item: Json) -> list[Json]:
    """The content parts of a message."""
    content = item.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def is_output(item: Json) -> bool:
    """Whether only a model says this: a message of the assistant's, a call."""
    return item.get("role") == "assistant" or item.get("type") == _CALL


def is_speech(item: Json) -> bool:
    """Whether a part of it is or was audio."""
    return any(part.get("type") in _SPEECH for part in parts_of(item))


def lacks_words(item: Json) -> bool:
    """Whether something in it was said that nobody knows the words of."""
    if item.get("role") == "assistant" and not parts_of(item):
        return True
    return any(part.get("type") in _SPEECH and not part.get("transcript") for part in parts_of(item))


def is_incomplete_call(item: Json) -> bool:
    """Whether it is a call whose arguments are not complete."""
    return item.get("type") == _CALL and item.get("status") == "in_progress"


def is_complete_call(item: Json) -> bool:
    """Whether it is a call with all its arguments."""
    return item.get("type") == _CALL and not is_incomplete_call(item)


def calls_without_output(log: Iterable[Json], created: Iterable[Json], *, among: Container[str]) -> list[str]:
    """The `call_id`s of the complete calls whose items are *among* these, and of which neither the *log* nor
    an item that is yet to be *created* is the output."""
    log = list(log)
    answered = {item.get("call_id") for item in (*log, *created) if item.get("type") == _OUTPUT}
    return [
        item["call_id"]
        for item in log
        if is_complete_call(item) and item.get("id") in among and item.get("call_id") not in answered
    ]


def call_id_of(item: Json) -> str | None:
    """The call that an item makes or answers."""
    call_id = item.get("call_id")
    return call_id if isinstance(call_id, str) else None


def call_output(item_id: str, call_id: str, output: str) -> Json:
    """The item that answers a call."""
    return {"id": item_id, "type": _OUTPUT, "call_id": call_id, "output": output}


def completed(item: Json, arguments: str) -> Json:
    """A call with its arguments."""
    return {**item, "arguments": arguments, "status": "completed"}


def with_transcript(item: Json, index: int, transcript: str) -> Json:
    """The item with the words of one content part."""
    return _with_part(item, index, {"transcript": transcript})


def heard_until(item: Json, index: int, share: float | None) -> Json:
    """A message of which only the first *share* (0 to 1) of one part was heard; None: nobody knows how much.

    Which words these are is an estimate: so many of its characters, without the word in which it ends.
    """
    parts = parts_of(item)
    if not 0 <= index < len(parts):
        return item
    key = "transcript" if parts[index].get("type") in _SPEECH else "text"
    words = str(parts[index].get(key) or "")
    if share is None or share >= 1:
        return item
    until = round(len(words) * max(0.0, share))
    kept = words[:until] if words[until : until + 1].isspace() else _whole(words[:until])
    return _with_part(item, index, {key: kept.rstrip() or CUT_OFF})


def without_images(item: Json) -> Json:
    """The item with words in place of its images; the same object where there are none."""
    if not image_bytes(item):
        return item
    role = str(item.get("role"))
    content = [_text(role, NO_IMAGE) if "image_url" in part else part for part in parts_of(item)]
    return {**item, "content": content}


def image_bytes(item: Json) -> int:
    """The size of its images, as they are written."""
    return sum(len(str(part["image_url"])) for part in parts_of(item) if "image_url" in part)


def _whole(words: str) -> str:
    return words[: words.rfind(" ") + 1] if " " in words else ""


def _with_part(item: Json, index: int, change: dict[str, Any]) -> Json:
    parts = parts_of(item)
    if not 0 <= index < len(parts):
        return item
    return {**item, "content": [*parts[:index], {**parts[index], **change}, *parts[index + 1 :]]}


def _as_text(part: Json, role: str) -> Json:
    if part.get("type") not in _SPEECH:
        return part
    return _text(role, str(part.get("transcript") or "") or (CUT_OFF if role == "assistant" else NOT_HEARD))


def _text(role: str, text: str) -> Json:
    return {"type": _TEXT_OF_ROLE.get(role, "input_text"), "text": text}


# --- events -------------------------------------------------------------------------------------------------


def item_create(item: Json, event_id: str, previous: str | None = None) -> Json:
    """A `conversation.item.create`; *previous* None: behind everything else, `root`: before it."""
    event = {"type": Client.ITEM_CREATE, "event_id": event_id, "item": item}
    return event if previous is None else {**event, "previous_item_id": previous}


def item_delete(item_id: str, event_id: str) -> Json:
    return {"type": Client.ITEM_DELETE, "event_id": event_id, "item_id": item_id}


def item_echo(kind: str, item: Json, previous: str | None, own_id: str) -> Json:
    """A `conversation.item.added` or `.done`, as the upstream would send it."""
    whole = {"object": "realtime.item", "status": "completed", **item}
    return {"type": kind, "event_id": own_id, "previous_item_id": previous, "item": whole}


def item_deleted(item_id: str, own_id: str) -> Json:
    """A `conversation.item.deleted`, as the upstream would send it."""
    return {"type": Server.ITEM_DELETED, "event_id": own_id, "item_id": item_id}


def cut_short(event: Json) -> list[str] | None:
    """The ids of the items of a `response.done`, of which none is complete; None where one is."""
    output = (event.get("response") or {}).get("output") or []
    if any(item.get("status") == "completed" for item in output):
        return None
    return [item["id"] for item in output if isinstance(item.get("id"), str)]


def place_of(data: Json) -> int:
    """Where in its response an item stands, by a `response.output_item` event; 0 where that does not say."""
    place = data.get("output_index")
    return place if isinstance(place, int) else 0


def output_item_done(item: Json, response_id: str | None, place: int, own_id: str) -> Json:
    """A `response.output_item.done`, as the upstream would send it."""
    named = {"event_id": own_id, "response_id": response_id, "output_index": place}
    return {"type": Server.OUTPUT_ITEM_DONE, **named, "item": {"object": "realtime.item", **item}}


def item_truncated(item_id: str, content_index: int, audio_end_ms: int, own_id: str) -> Json:
    return {
        "type": Server.ITEM_TRUNCATED,
        "event_id": own_id,
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


def truncation_of(event: Json) -> tuple[int, int]:
    """`(content_index, audio_end_ms)` of a truncate or its echo, 0 where it does not say."""
    index, end_ms = event.get("content_index"), event.get("audio_end_ms")
    return index if isinstance(index, int) else 0, end_ms if isinstance(end_ms, int) else 0


def transcription_failed(item_id: str, code: str, message: str, own_id: str) -> Json:
    """What a client is told of an item whose words will never be written down."""
    return {
        "type": Server.TRANSCRIPTION_FAILED,
        "event_id": own_id,
        "item_id": item_id,
        "content_index": 0,
        "error": {"type": "server_error", "code": code, "message": message, "param": None},
    }


def transcript_of(event: Json) -> tuple[int, str]:
    """`(content_index, words)` of a completed transcription."""
    index, words = event.get("content_index"), event.get("transcript")
    return index if isinstance(index, int) else 0, words if isinstance(words, str) else ""


def arguments_of(event: Json) -> str | None:
    """The arguments of a call that are complete."""
    arguments = event.get("arguments")
    return arguments if isinstance(arguments, str) else None


def previous_of(event: Json) -> str | None:
    """The item before the one an echo is about: `ROOT` where there is none, None where it does not say."""
    previous = event.get("previous_item_id", "")
    if previous is None:
        return ROOT
    return previous if isinstance(previous, str) and previous else None


def response_failed(response: Json, output: list[Json], code: str, message: str, own_id: str) -> Json:
    """A `response.done` for a response that the upstream will not end itself: status `failed`, no usage."""
    error = {"type": "server_error", "code": code, "message": message}
    return _response_done(response, "failed", {"type": "failed", "error": error}, output, own_id)


def response_completed(response: Json, output: list[Json], own_id: str) -> Json:
    """A `response.done` for a response of which nothing but that was missing; no usage."""
    return _response_done(response, "completed", None, output, own_id)


def _response_done(
    response: Json, status: str, details: Json | None, output: list[Json], own_id: str
) -> Json:
    ended = {**response, "status": status, "status_details": details, "output": output, "usage": None}
    return {"type": Server.RESPONSE_DONE, "event_id": own_id, "response": ended}


def kind_of(item: Json) -> tuple[Any, ...]:
    """What an item is: equal for a client's and the upstream's echo of it."""
    part_types = tuple(part.get("type") for part in parts_of(item))
    return item.get("type"), item.get("role"), item.get("call_id"), part_types
