"""Every name that leaves this plugin, in one table.

Those without the prefix ``rtpipe.`` are of OpenTelemetry's semantic conventions: the general ones, and those
for generative AI, which since 2026 have a repository of their own and are still in development (v0.1.0,
``docs/gen-ai/client-inference.md`` and ``execute-tool`` there).
"""

from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
CONVERSATION: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
OUTPUT_TYPE: Final = "gen_ai.output.type"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
MODALITIES: Final = {
    "input_text": "gen_ai.usage.text.input_tokens",
    "input_audio": "gen_ai.usage.audio.input_tokens",
    "input_image": "gen_ai.usage.image.input_tokens",
    "cached_text": "gen_ai.usage.text.cache_read.input_tokens",
    "cached_audio": "gen_ai.usage.audio.cache_read.input_tokens",
    "cached_image": "gen_ai.usage.image.cache_read.input_tokens",
    "output_text": "gen_ai.usage.text.output_tokens",
    "output_audio": "gen_ai.usage.audio.output_tokens",
}
"""By the gateway's word for it."""
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
FUNCTION: Final = "function"
SPEECH: Final = "speech"
TEXT: Final = "text"
OPENAI: Final = "openai"
AZURE: Final = "azure.ai.openai"

# Nothing in the conventions says these.
PRINCIPAL: Final = "rtpipe.principal"
LISTENER: Final = "rtpipe.listener"
UPSTREAM: Final = "rtpipe.upstream"
TURNS: Final = "rtpipe.turns"
TOKENS: Final = "rtpipe.tokens"
COST: Final = "rtpipe.cost_usd"
CLOSE_CODE: Final = "rtpipe.close_code"
ENDED_BY: Final = "rtpipe.ended_by"
INCOMPLETE: Final = "rtpipe.incomplete"
ORIGIN: Final = "rtpipe.response.origin"
INTERRUPTED_BY: Final = "rtpipe.response.interrupted_by"
FIRST_AUDIO: Final = "rtpipe.response.time_to_first_audio"
TURN_LATENCY: Final = "rtpipe.response.turn_latency"
TOOL_STATUS: Final = "rtpipe.tool.status"
STAGE: Final = "rtpipe.stage"
SECONDS: Final = "rtpipe.seconds"
MESSAGE: Final = "rtpipe.message"
EVENT_TYPE: Final = "rtpipe.event.type"
LEG: Final = "rtpipe.leg"
CHANGE: Final = "rtpipe.change"
CAUSE: Final = "rtpipe.cause"
OUTCOME: Final = "rtpipe.outcome"
TEXT_SAID: Final = "rtpipe.text"

# Events of the session's span.
ERROR_EVENT: Final = "rtpipe.error"
LEG_EVENT: Final = "rtpipe.leg"
REFUSED_EVENT: Final = "rtpipe.refused"
ALERT_EVENT: Final = "rtpipe.alert"
WAITED_EVENT: Final = "rtpipe.waited"
TURN_EVENT: Final = "rtpipe.turn"
CALLER_SAID_EVENT: Final = "rtpipe.caller_said"
