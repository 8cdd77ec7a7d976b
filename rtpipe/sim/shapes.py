"""The fields of the client events, as in openai-python 3.54.0.

These structs only judge. What passes is handled as the plain dictionary it came as, because "absent" and
"null" mean different things in a session.update.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

NonNegative = Annotated[int, Meta(ge=0)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Modalities = Annotated[list[Literal["text", "audio"]], Meta(min_length=1, max_length=1)]
MaxOutputTokens = Annotated[int, Meta(ge=1)] | Literal["inf"] | None


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Pcm(Shape, tag="audio/pcm"):
    rate: Literal[24000] | None = None


class Pcmu(Shape, tag="audio/pcmu"):
    pass


class Pcma(Shape, tag="audio/pcma"):
    pass


Format = Pcm | Pcmu | Pcma


class NoiseReduction(Shape):
    type: Literal["near_field", "far_field"] | None = None
    strength: float | None = None


class Transcription(Shape):
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    keywords: list[str] | None = None
    language: str | None = None
    languages: list[str] | None = None
    model: str | None = None
    prompt: str | None = None


class ServerVad(Shape, tag="server_vad"):
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    prefix_padding_ms: NonNegative | None = None
    silence_duration_ms: NonNegative | None = None
    idle_timeout_ms: NonNegative | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class SemanticVad(Shape, tag="semantic_vad"):
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class VoiceId(Shape):
    id: str


class AudioInput(Shape):
    format: Format | None = None
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = None
    turn_detection: ServerVad | SemanticVad | None = None


class AudioOutput(Shape):
    format: Format | None = None
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | None = None
    voice: str | VoiceId | None = None


class Audio(Shape):
    input: AudioInput | None = None
    output: AudioOutput | None = None


class ResponseAudioOutput(Shape):
    format: Format | None = None
    voice: str | VoiceId | None = None


class ResponseAudio(Shape):
    output: ResponseAudioOutput | None = None


class FunctionTool(Shape, tag="function"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class McpTool(Shape, tag="mcp"):
    server_label: str
    allowed_callers: list[Literal["direct", "programmatic"]] | None = None
    allowed_tools: list[str] | dict[str, Any] | None = None
    authorization: str | None = None
    connector_id: str | None = None
    defer_loading: bool | None = None
    headers: dict[str, str] | None = None
    require_approval: str | dict[str, Any] | None = None
    server_description: str | None = None
    server_url: str | None = None
    tunnel_id: str | None = None


class ChosenFunction(Shape, tag="function"):
    name: str


class ChosenMcp(Shape, tag="mcp"):
    server_label: str
    name: str | None = None


class Reasoning(Shape):
    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class Prompt(Shape):
    id: str
    variables: dict[str, str | dict[str, Any]] | None = None
    version: str | None = None


class Tracing(Shape):
    group_id: str | None = None
    metadata: Any = None
    workflow_name: str | None = None


class TokenLimits(Shape):
    post_instructions: NonNegative | None = None


class RetentionRatio(Shape):
    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Meta(ge=0, le=1)]
    token_limits: TokenLimits | None = None


class Generation(Shape):
    """What a session sets and a response may override."""

    instructions: str | None = None
    max_output_tokens: MaxOutputTokens = None
    output_modalities: Modalities | None = None
    parallel_tool_calls: bool | None = None
    prompt: Prompt | None = None
    reasoning: Reasoning | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | ChosenMcp | None = None
    tools: list[FunctionTool | McpTool] | None = None


class Session(Generation, kw_only=True):
    type: Literal["realtime"]
    audio: Audio | None = None
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None
    model: str | None = None
    tracing: Literal["auto"] | Tracing | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio | None = None


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
    session: Session


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
