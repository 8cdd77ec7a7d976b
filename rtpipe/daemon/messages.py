"""The messages of JSON lines that are rtpipe's own; between them go Realtime events as they are.

Their JSON Schema is generated from here (`config/jsonlines.schema.json`).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rtpipe.api.tools import Late, Retry, Tool

VERSION = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages."""


class Hello(Message, frozen=True, kw_only=True, tag="rtpipe.hello", forbid_unknown_fields=True):
    """The first line, from the peer: what it wants to be.

    *key* is what a client would send as `Authorization: Bearer`; on a Unix socket the peer's uid and gid may
    be enough. *model* and *intent* are for a session. There *session* is the client's own key for it, by
    which it finds it again, and *after* the id of the last event that it has. *session* and *types* narrow
    what a tap sees: the session of that id, and event types (one that ends in `*` stands for all that begin
    so).
    """

    role: Literal["session", "tools", "tap"] = "session"
    version: int = VERSION
    key: str | None = None
    model: str | None = None
    intent: str | None = None
    session: str | None = None
    after: str | None = None
    types: tuple[str, ...] | None = None


class Welcome(Message, frozen=True, kw_only=True, tag="rtpipe.welcome"):
    """The answer to a hello that was let in. *session* is the session's id; a tap has none."""

    principal: str
    session: str | None = None
    version: int = VERSION


class RefusedMessage(Message, frozen=True, kw_only=True, tag="rtpipe.refused"):
    """The answer to a hello that was not let in; the last line. *status* is what HTTP would have said."""

    status: int
    code: str
    message: str


class Closed(Message, frozen=True, kw_only=True, tag="rtpipe.closed"):
    """The last line of a connection that was in service: a WebSocket close code and its reason. A client may
    say so too; then 1000 (or no code) ends its session."""

    code: int = 1000
    reason: str = ""


class EventSeen(Message, frozen=True, kw_only=True, tag="rtpipe.event"):
    """To a tap: an event as the client sent it (`upstream`) or was sent it (`downstream`)."""

    session: str
    direction: Literal["upstream", "downstream"]
    event: msgspec.Raw


class FactSeen(Message, frozen=True, kw_only=True, tag="rtpipe.fact"):
    """To a tap: what became of something. *fact* names its kind, *fields* are as `rtpipe.facts` has them."""

    fact: str
    fields: dict[str, Any]


class Missed(Message, frozen=True, kw_only=True, tag="rtpipe.missed"):
    """To a tap that does not keep up: so many lines were left out here."""

    count: int


class OfferedTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tool of a service: *parameters* is the JSON Schema of its arguments, *timeout_ms* how long the
    caller waits for an answer, and the rest what may be done with calls: `cancellable` in the middle,
    `confirm` with the caller first, `late` answers, `cache_ttl_s`, and `mask` for what belongs in no log.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Meta(max_length=4096)] = ""
    parameters: dict[str, Any] = {}
    timeout_ms: Annotated[int, Meta(ge=1, le=600_000)] = 5000
    cancellable: bool = False
    confirm: bool = False
    late: Late = "drop"
    cache_ttl_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    mask: tuple[str, ...] = ()

    def tool(self) -> Tool:
        """The tool as sessions are offered it."""
        return Tool(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            timeout_s=self.timeout_ms / 1000,
            cancellable=self.cancellable,
            confirm=self.confirm,
            late=self.late,
            cache_ttl_s=self.cache_ttl_s,
            mask=self.mask,
        )


class RegisterTools(Message, frozen=True, kw_only=True, tag="rtpipe.tools.register"):
    """From a tool service: all its tools. Sent again, it replaces what this connection offered before."""

    # Each is read for itself: what is wrong with one does not keep the others out.
    tools: list[Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": "#/$defs/OfferedTool"})]]


class ToolsRegistered(Message, frozen=True, kw_only=True, tag="rtpipe.tools.registered"):
    """To a tool service: what is offered of what it registered. An `rtpipe.error` before says why a tool is
    not among them."""

    names: list[str]


class CallTool(Message, frozen=True, kw_only=True, tag="rtpipe.tool.call"):
    """To a tool service: the model calls. *call_id* is rtpipe's, to be named in the result; *session* and
    *principal* are whom the answer is for; *deadline_ms* is how long it is waited for."""

    call_id: str
    name: str
    arguments: msgspec.Raw
    session: str
    principal: str
    deadline_ms: int


class ToolResult(Message, frozen=True, kw_only=True, tag="rtpipe.tool.result"):
    """From a tool service: the answer, any JSON in *result*; or an *error*, a sentence that may be said to
    the caller, and in *retry* whether to try again."""

    call_id: str
    result: msgspec.Raw | UnsetType = UNSET
    error: str | UnsetType = UNSET
    retry: Retry = "no"


class CancelTool(Message, frozen=True, kw_only=True, tag="rtpipe.tool.cancel"):
    """To a tool service: nobody waits for this call's result any more. *reason* is `timeout`, `session_end`
    or another short word."""

    call_id: str
    reason: str


class ErrorMessage(Message, frozen=True, kw_only=True, tag="rtpipe.error"):
    """To a tool service: a line of its that counts for nothing, or a tool that is not offered (*name*)."""

    code: str
    message: str
    name: str | None = None
    call_id: str | None = None


ALL: tuple[type[Message], ...] = (
    Hello,
    Welcome,
    RefusedMessage,
    Closed,
    EventSeen,
    FactSeen,
    Missed,
    RegisterTools,
    ToolsRegistered,
    CallTool,
    ToolResult,
    CancelTool,
    ErrorMessage,
)
"""Every message, either way."""
PARTS: tuple[type[msgspec.Struct], ...] = (OfferedTool,)
"""What messages are made of."""
FromService = RegisterTools | ToolResult
"""What a tool service may say after its hello."""
