"""The fields of the client events, as in openai-python 3.54.0.

These structs only judge. What passes is handled as the plain dictionary it came as, because "absent" and
"null" mean different things in a session.update.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class McpItem(Shape):
    id: Annotated[str, Meta(min_length=1)] | None = None


class ListedTool(Shape):
    name: str
    input_schema: Any
    annotations: Any = None
    description: str | None = None


class McpListTools(McpItem, tag="mcp_list_tools", kw_only=True):
    server_label: str
    tools: list[ListedTool]


class ProtocolError(Shape, tag="protocol_error"):
    code: int
    message: str


class ToolExecutionError(Shape, tag="tool_execution_error"):
    message: str


class HttpError(Shape, tag="http_error"):
    code: int
    message: str


class McpCall(McpItem, tag="mcp_call", kw_only=True):
    server_label: str
    name: str
    arguments: str
    approval_request_id: str | None = None
    error: ProtocolError | ToolExecutionError | HttpError | None = None
    output: str | None = None


class McpApprovalRequest(McpItem, tag="mcp_approval_request", kw_only=True):
    server_label: str
    name: str
    arguments: str


class McpApprovalResponse(McpItem, tag="mcp_approval_response", kw_only=True):
    approval_request_id: str
    approve: bool
    reason: str | None = None


ClientItem = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | McpListTools
    | McpCall
    | McpApprovalRequest
    | McpApprovalResponse
)


class ItemReference(Shape, tag="item_reference"):
    id: str


class ResponseCreateParams(Generation):
    audio: ResponseAudio | None = None
    conversation: Literal["auto", "none"] | None = None
    input: list[ClientItem | ItemReference] | None = None
    metadata: Metadata | None = None


class Event(Shape):
    type: str
    event_id: str | None = None


class SessionUpdate(Event, kw_only=True):
    session: Session | TranscriptionSession


class ItemCreate(Event, kw_only=True):
    item: ClientItem
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
