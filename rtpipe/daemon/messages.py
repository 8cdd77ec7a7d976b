"""The messages of JSON lines that are rtpipe's own; between them go Realtime events as they are.

Their JSON Schema is generated from here (`config/jsonlines.schema.json`).
"""

from typing import Any, Literal

import msgspec

VERSION = 1


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages."""


class Hello(Message, frozen=True, kw_only=True, tag="rtpipe.hello", forbid_unknown_fields=True):
    """The first line, from the peer: what it wants to be.

    *key* is what a client would send as `Authorization: Bearer`; on a Unix socket the peer's uid and gid may
    be enough. *model* and *intent* are for a session. *session* and *types* narrow what a tap sees: one
    session, and event types (one that ends in `*` stands for all that begin so).
    """

    role: Literal["session", "tools", "tap"] = "session"
    version: int = VERSION
    key: str | None = None
    model: str | None = None
    intent: str | None = None
    session: str | None = None
    types: tuple[str, ...] | None = None


class Welcome(Message, frozen=True, kw_only=True, tag="rtpipe.welcome"):
    """The answer to a hello that was let in. *session* is the new session's id; a tap has none."""

    principal: str
    session: str | None = None
    version: int = VERSION


class RefusedMessage(Message, frozen=True, kw_only=True, tag="rtpipe.refused"):
    """The answer to a hello that was not let in; the last line. *status* is what HTTP would have said."""

    status: int
    code: str
    message: str


class Closed(Message, frozen=True, kw_only=True, tag="rtpipe.closed"):
    """The last line of a connection that was in service: a WebSocket close code and its reason."""

    code: int
    reason: str


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


ALL: tuple[type[Message], ...] = (Hello, Welcome, RefusedMessage, Closed, EventSeen, FactSeen, Missed)
"""Every message, either way."""
