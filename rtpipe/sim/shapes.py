"""The fields of the client events, as in openai-python 3.54.0.

These structs only judge. What passes is handled as the plain dictionary it came as, because "absent" and
"null" mean different things in a session.update.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .session_shapes import Format, Generation, NonNegative, Session, Shape, TranscriptionSession, VoiceId

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class ResponseAudioOutput(Shape):
    format: Format | None = None
    voice: str | VoiceId | None = None


class ResponseAudio(Shape):
    output: ResponseAudioOutput | None = None


class InputText(Shape, tag="input_text"):
    text: str


class InputAudio(Shape, tag="input_audio"):
    audio: str
    transcript: str | None = None


class InputImage(Shape, tag="input_image"):
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(Shape, tag="output_text"):
    text: str


class ItemShape(Shape):
    id: Annotated[str, Meta(min_length=1)] | None = None
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class Message(ItemShape, tag="message", kw_only=True):
    role: Literal["system", "user", "assistant"]
    content: list[InputText | InputAudio | InputImage | OutputText]


class FunctionCall(ItemShape, tag="function_call", kw_only=True):
    name: str
    arguments: str
    call_id: str | None = None


class FunctionCallOutput(ItemShape, tag="function_call_output", kw_only=True):
    call_id: str
    output: str


class ItemReference(Shape, tag="item_reference"):
    id: str


class ResponseCreateParams(Generation):
    audio: ResponseAudio | None = None
    conversation: Literal["auto", "none"] | None = None
    input: list[Message | FunctionCall | FunctionCallOutput | ItemReference] | None = None
    metadata: Metadata | None = None


class Event(Shape):
    type: str
    event_id: str | None = None


class SessionUpdate(Event, kw_only=True):
    session: Session | TranscriptionSession


class ItemCreate(Event, kw_only=True):
    item: Message | FunctionCall | FunctionCallOutput
    previous_item_id: str | None = None


class ItemNamed(Event, kw_only=True):
    item_id: str


class ItemTruncate(ItemNamed, kw_only=True):
    content_index: NonNegative
    audio_end_ms: NonNegative


class AudioAppend(Event, kw_only=True):
    audio: str


class ResponseCreate(Event):
    response: ResponseCreateParams | None = None


class ResponseCancel(Event):
    response_id: str | None = None


CLIENT_EVENTS: dict[str, type[Event]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": AudioAppend,
    "input_audio_buffer.commit": Event,
    "input_audio_buffer.clear": Event,
    "conversation.item.create": ItemCreate,
    "conversation.item.delete": ItemNamed,
    "conversation.item.retrieve": ItemNamed,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}
