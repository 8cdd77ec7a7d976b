"""The fields of a session, as in openai-python 3.54.0. Like `shapes.py`, these structs only judge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

NonNegative = Annotated[int, Meta(ge=0)]
Include = list[Literal["item.input_audio_transcription.logprobs"]]
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


Connector = Literal[
    "connector_dropbox",
    "connector_gmail",
    "connector_googlecalendar",
    "connector_googledrive",
    "connector_microsoftteams",
    "connector_outlookcalendar",
    "connector_outlookemail",
    "connector_sharepoint",
]


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


class FunctionTool(Shape, tag="function"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class McpToolFilter(Shape):
    read_only: bool | None = None
    tool_names: list[str] | None = None


class McpApproval(Shape):
    always: McpToolFilter | None = None
    never: McpToolFilter | None = None


class McpTool(Shape, tag="mcp"):
    server_label: str
    allowed_callers: list[Literal["direct", "programmatic"]] | None = None
    allowed_tools: list[str] | McpToolFilter | None = None
    authorization: str | None = None
    connector_id: Connector | None = None
    defer_loading: bool | None = None
    headers: dict[str, str] | None = None
    require_approval: Literal["always", "never"] | McpApproval | None = None
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


class Session(Generation, kw_only=True, tag="realtime"):
    audio: Audio | None = None
    include: Include | None = None
    model: str | None = None
    tracing: Literal["auto"] | Tracing | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio | None = None


class TranscriptionAudio(Shape):
    input: AudioInput | None = None


class TranscriptionSession(Shape, kw_only=True, tag="transcription"):
    audio: TranscriptionAudio | None = None
    include: Include | None = None
