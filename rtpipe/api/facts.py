"""Facts: what became of things. The host and plugins record them; everything else is made of them.

Log lines, metrics, traces, alerts and views consume facts. Add a fact rather than a second counter.
Durations are seconds, amounts of money are micro-dollars (1 USD = 1,000,000).
"""

from collections.abc import Mapping

import msgspec


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all facts. *session* is empty for what happened outside a session."""

    session: str = ""


class SessionOpened(Fact, frozen=True):
    """A session has its upstream; *listener* and *upstream* are names of the configuration.

    *address* is the client's, ``uid …`` on a Unix socket.
    """

    principal: str
    model: str
    listener: str
    upstream: str
    address: str = ""


class SessionClosed(Fact, frozen=True):
    """*cause* is who ended it: client, upstream, host, or a stage's name.

    *micro_usd* is what it cost: the sum of its ``Spent``; *turns* are the caller's, *tokens* the total of its
    responses. *lost* is what could not be kept when its legs changed, empty if that was nothing.
    """

    principal: str
    code: int
    reason: str
    cause: str
    duration_s: float
    micro_usd: int = 0
    model: str = ""
    turns: int = 0
    tokens: int = 0
    lost: str = ""


class TurnStarted(Fact, frozen=True):
    """The caller's turn was committed; *by* is ``vad`` or ``client``."""

    item_id: str
    by: str


class ResponseEnded(Fact, frozen=True):
    """*origin* is whoever asked for the response, ``upstream`` when voice activity did.

    *reason* is why it did not complete, in the upstream's words (a code where it failed). *interrupted_by* is
    who cut it short: ``caller`` (by speaking), client, host or a stage's name; empty for nobody.
    *first_audio_s* counts from the response's start, *turn_latency_s* from the end of the caller's turn to
    the same moment; None where there was none. *call_ids* are the tool calls it made.
    """

    response_id: str
    status: str
    origin: str
    duration_s: float
    usage: Mapping[str, float]
    model: str = ""
    reason: str = ""
    interrupted_by: str = ""
    first_audio_s: float | None = None
    turn_latency_s: float | None = None
    call_ids: tuple[str, ...] = ()


class ToolCalled(Fact, frozen=True):
    """A call of the model's was answered, or not; *stage* is who did it, *duration_s* what the model waited.

    *status*: ``ok``, ``error`` (the tool failed or said no), ``timeout``, ``cancelled``, ``repeat`` (with an
    equal call's result), ``cached``, ``page`` (more of a result), ``invalid`` (arguments), ``unconfirmed``,
    ``breaker`` (not tried), ``busy`` (too many at once), ``invented`` (no such function; *name* is empty
    then), ``left`` (it runs on without its session). After a timeout there is a second one: ``late-offered``
    or ``late-dropped``. *arguments* is masked JSON, empty unless the operator wants it. *digest* is the
    host's: the same for calls of a session with the same name and arguments, of which it tells nothing.
    """

    name: str
    call_id: str
    stage: str
    duration_s: float
    status: str
    arguments: str = ""
    digest: str = ""


class BreakerChanged(Fact, frozen=True):
    """A tool is no longer called (``open``) or is again (``closed``), after *failures* in a row."""

    name: str
    stage: str
    state: str
    failures: int


class Waited(Fact, frozen=True):
    """A held event left its queue; *outcome* is released, dropped, expired, or a stage's own word."""

    stage: str
    type: str
    duration_s: float
    outcome: str


class Spent(Fact, frozen=True):
    """What a use of the model cost; *usage* is what the price was made of.

    *response_id* is empty for a transcription. *cycle* is the first response of a chain of tool calls and
    their answers, the response itself where there was none: the sum over it is what the turn cost.
    *image_micro_usd* is the part of *micro_usd* that was for images.
    """

    principal: str
    model: str
    micro_usd: int
    usage: Mapping[str, float]
    response_id: str = ""
    cycle: str = ""
    image_micro_usd: int = 0


class Operated(Fact, frozen=True):
    """An operator did something through the admin socket: *action* is reload, kill, forget or watch, *by* the
    peer, *what* the names of what it was done to."""

    action: str
    by: str
    what: str


class ImageCompressed(Fact, frozen=True):
    """An image on its way to the model was made smaller; *outcome* is ``compressed``, ``kept`` (as it came),
    or ``repeated``: a text naming an equal one went instead.

    Bytes are those of the file, *duration_s* is with waiting. How images are counted is not published, so
    tokens are estimated.
    """

    stage: str
    outcome: str
    duration_s: float
    bytes_before: int
    bytes_after: int
    pixels_before: int
    pixels_after: int
    estimated_tokens_before: int
    estimated_tokens_after: int


class Refused(Fact, frozen=True):
    """Somebody was not let in, or an event was not let through."""

    stage: str
    code: str
    message: str
    principal: str = ""
    address: str = ""


class Alerted(Fact, frozen=True):
    """Somebody should look at this; *name* is a short word for what it is about."""

    stage: str
    name: str
    message: str
    labels: Mapping[str, str]


class LegChanged(Fact, frozen=True):
    """*leg* is client or upstream; *change* is attached; lost, then replaced (an upstream); parked, then
    resumed (a client).

    *cause* is why it was lost or parked, the close code first; of replaced and resumed what was not carried
    over.
    """

    leg: str
    change: str
    cause: str
