"""What the admin socket answers, as types; its OpenAPI document is generated from here
(`config/admin.openapi.json`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from rtpipe.api.request import Health
from rtpipe.daemon.hooks import DRAIN, FORGET, METRICS, PLUGINS, RELOAD, SESSIONS
from rtpipe.daemon.reload import Report

SESSION = f"{SESSIONS}/{{id}}"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all that is answered."""


class Ways(Answer, frozen=True, kw_only=True):
    """A number for each direction: towards the model and towards the client."""

    upstream: int
    downstream: int


class Fates(Answer, frozen=True, kw_only=True):
    """For each direction how many events came, as `came`, and by name what became of them."""

    upstream: Mapping[str, int]
    downstream: Mapping[str, int]


class SessionShown(Answer, frozen=True, kw_only=True):
    """A session in service. *upstream* (the one that serves it now, or did last) and *listener* are names of
    the configuration, *waiting* are events that are held, *bytes* payload bytes exchanged with the model's
    server. *on_old_chain*: a reload has made another chain since it began."""

    id: str
    principal: str
    model: str
    upstream: str
    listener: str
    age_s: float
    client_attached: bool
    on_old_chain: bool
    events: Fates
    waiting: Ways
    bytes: Ways


class Passed(Answer, frozen=True, kw_only=True):
    """Events of one type exchanged with the model's server, and their payload bytes."""

    events: int
    bytes: int


class Types(Answer, frozen=True, kw_only=True):
    """For each direction by event type; `other` are those beyond what is told apart."""

    upstream: Mapping[str, Passed]
    downstream: Mapping[str, Passed]


class LossShown(Answer, frozen=True, kw_only=True):
    """What could not be kept when a leg was replaced or resumed: *leg* is upstream or client."""

    time: datetime
    leg: str
    what: str


class OneSession(SessionShown, frozen=True, kw_only=True):
    """A session with more of it: *asked* is the session object as the client asked for it, redacted, *losses*
    are the last things that could not be kept."""

    types: Types
    asked: dict[str, Any]
    losses: list[LossShown]


class SessionList(Answer, frozen=True, kw_only=True):
    """Every session in service."""

    sessions: list[SessionShown]


class Ended(Answer, frozen=True, kw_only=True):
    """The id of the session that was told to end: its client hears 1008."""

    ended: str


class Forgotten(Answer, frozen=True, kw_only=True):
    """A line for each part of the gateway that had something written."""

    forgotten: list[str]


class PluginShown(Answer, frozen=True, kw_only=True):
    """A stage of the chain. *on_error* is its failure policy, *failures* are counted by hook, *health* is
    what it says of itself, null where it says nothing."""

    stage: str
    plugin: str
    on_error: Literal["close", "drop", "pass"]
    failures: Mapping[str, int]
    health: Health | None


class PluginList(Answer, frozen=True, kw_only=True):
    """The stages of the chain, client first."""

    plugins: list[PluginShown]


class Draining(Answer, frozen=True, kw_only=True):
    """How many sessions are yet to end."""

    sessions: int


class ErrorShown(Answer, frozen=True, kw_only=True):
    """A refusal, in OpenAI's shape."""

    type: str
    code: str | None
    message: str
    param: str | None = None


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """Any answer that is no good one."""

    error: ErrorShown


class Operation(NamedTuple):
    """One thing to ask for. *answer* is None where it is the text of the metrics."""

    about: str
    answer: type[msgspec.Struct] | None
    refusals: Mapping[int, str] = {}


_NO_SESSION: Mapping[int, str] = {404: "There is no such session in service."}

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", SESSIONS): Operation("The sessions in service.", SessionList),
    ("GET", SESSION): Operation("One of them.", OneSession, refusals=_NO_SESSION),
    ("DELETE", SESSION): Operation("End it.", Ended, refusals=_NO_SESSION),
    ("POST", FORGET): Operation(
        "Erase what is written of the session of this id, or of the principal: the query is name=…. Sessions "
        "in service go on, and are not written any more.",
        Forgotten,
        refusals={
            404: "Nothing is written of anybody of this name.",
            422: "The query has no name.",
            503: "Not everything is erased; ask again.",
        },
    ),
    ("GET", PLUGINS): Operation("The stages of the chain and how they fare.", PluginList),
    ("GET", METRICS): Operation("The metrics, as Prometheus reads them.", None),
    ("POST", RELOAD): Operation(
        "Read the configuration again and put it in service.",
        Report,
        refusals={422: "It cannot be used; nothing has changed, and the message says what is wrong where."},
    ),
    ("POST", DRAIN): Operation(
        "Stop: no new sessions, those there are end when they are idle, then the daemon does.", Draining
    ),
}
"""By method and path."""
