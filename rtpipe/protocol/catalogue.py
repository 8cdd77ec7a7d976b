"""The names of every event of the Realtime protocol, and of the two directions.

Source: the event unions of openai-python 3.54.0 (`openai.types.realtime`); a test compares the two. A type
that is not listed here is not an error: unknown types pass through rtpipe untouched.
"""

from typing import Any, Final, Literal

Json = dict[str, Any]
"""A decoded JSON object. Functions of this package never mutate one they were given; what they return may
share parts with it, so callers do not mutate those either."""

Direction = Literal["upstream", "downstream"]
UPSTREAM: Final = "upstream"
"""From the client to the model."""
DOWNSTREAM: Final = "downstream"
"""From the model to the client."""


class Client:
    """What a client sends (11 types)."""

    SESSION_UPDATE: Final = "session.update"
    AUDIO_APPEND: Final = "input_audio_buffer.append"
    AUDIO_COMMIT: Final = "input_audio_buffer.commit"
    AUDIO_CLEAR: Final = "input_audio_buffer.clear"
    OUTPUT_AUDIO_CLEAR: Final = "output_audio_buffer.clear"
    ITEM_CREATE: Final = "conversation.item.create"
    ITEM_DELETE: Final = "conversation.item.delete"
    ITEM_RETRIEVE: Final = "conversation.item.retrieve"
    ITEM_TRUNCATE: Final = "conversation.item.truncate"
    RESPONSE_CREATE: Final = "response.create"
    RESPONSE_CANCEL: Final = "response.cancel"


class Server:
    """What the model sends (46 types)."""

    ERROR: Final = "error"
    SESSION_CREATED: Final = "session.created"
    SESSION_UPDATED: Final = "session.updated"
    RATE_LIMITS_UPDATED: Final = "rate_limits.updated"

    CONVERSATION_CREATED: Final = "conversation.created"
    ITEM_ADDED: Final = "conversation.item.added"
    ITEM_DONE: Final = "conversation.item.done"
    ITEM_CREATED: Final = "conversation.item.created"
    """The beta's name for `conversation.item.added`; some upstreams still send it."""
    ITEM_DELETED: Final = "conversation.item.deleted"
    ITEM_RETRIEVED: Final = "conversation.item.retrieved"
    ITEM_TRUNCATED: Final = "conversation.item.truncated"
    TRANSCRIPTION_DELTA: Final = "conversation.item.input_audio_transcription.delta"
    TRANSCRIPTION_SEGMENT: Final = "conversation.item.input_audio_transcription.segment"
    TRANSCRIPTION_COMPLETED: Final = "conversation.item.input_audio_transcription.completed"
    TRANSCRIPTION_FAILED: Final = "conversation.item.input_audio_transcription.failed"

    SPEECH_STARTED: Final = "input_audio_buffer.speech_started"
    SPEECH_STOPPED: Final = "input_audio_buffer.speech_stopped"
    TIMEOUT_TRIGGERED: Final = "input_audio_buffer.timeout_triggered"
    AUDIO_COMMITTED: Final = "input_audio_buffer.committed"
    AUDIO_CLEARED: Final = "input_audio_buffer.cleared"
    DTMF_RECEIVED: Final = "input_audio_buffer.dtmf_event_received"
    """SIP only, and the one server event without an `event_id`."""
    OUTPUT_AUDIO_STARTED: Final = "output_audio_buffer.started"
    OUTPUT_AUDIO_STOPPED: Final = "output_audio_buffer.stopped"
    OUTPUT_AUDIO_CLEARED: Final = "output_audio_buffer.cleared"

    RESPONSE_CREATED: Final = "response.created"
    RESPONSE_DONE: Final = "response.done"
    OUTPUT_ITEM_ADDED: Final = "response.output_item.added"
    OUTPUT_ITEM_DONE: Final = "response.output_item.done"
    CONTENT_PART_ADDED: Final = "response.content_part.added"
    CONTENT_PART_DONE: Final = "response.content_part.done"
    TEXT_DELTA: Final = "response.output_text.delta"
    TEXT_DONE: Final = "response.output_text.done"
    AUDIO_DELTA: Final = "response.output_audio.delta"
    AUDIO_DONE: Final = "response.output_audio.done"
    TRANSCRIPT_DELTA: Final = "response.output_audio_transcript.delta"
    TRANSCRIPT_DONE: Final = "response.output_audio_transcript.done"
    ARGUMENTS_DELTA: Final = "response.function_call_arguments.delta"
    ARGUMENTS_DONE: Final = "response.function_call_arguments.done"

    MCP_ARGUMENTS_DELTA: Final = "response.mcp_call_arguments.delta"
    MCP_ARGUMENTS_DONE: Final = "response.mcp_call_arguments.done"
    MCP_CALL_IN_PROGRESS: Final = "response.mcp_call.in_progress"
    MCP_CALL_COMPLETED: Final = "response.mcp_call.completed"
    MCP_CALL_FAILED: Final = "response.mcp_call.failed"
    MCP_LIST_TOOLS_IN_PROGRESS: Final = "mcp_list_tools.in_progress"
    MCP_LIST_TOOLS_COMPLETED: Final = "mcp_list_tools.completed"
    MCP_LIST_TOOLS_FAILED: Final = "mcp_list_tools.failed"


def _names(group: type) -> frozenset[str]:
    return frozenset(value for key, value in vars(group).items() if key.isupper())


CLIENT_TYPES: Final = _names(Client)
SERVER_TYPES: Final = _names(Server)
