"""One ``response.create`` and what is known about it."""

from collections import deque
from dataclasses import dataclass, field

from rtpipe import Event, Json
from rtpipe.protocol import errors, events

STAMP = "rtpipe_response_lock"
"""The metadata key by which the response to a client's create is told from one that nobody here asked for.
Only on creates without metadata of their own; taken off again before a client sees it."""


@dataclass(slots=True, eq=False, kw_only=True)
class Asked:
    """A create that waits, or is on its way, or is being answered."""

    key: str
    event: Event
    """As it goes up: with an ``event_id`` and, where possible, metadata."""
    since_s: float
    """When it came, or went up last."""
    refusals: int = 0
    retries: int = 0
    has_doubt: bool = False
    """A response without metadata began while this was unanswered."""

    @property
    def event_id(self) -> str | None:
        return events.event_id_of(self.event.data)

    @property
    def is_automatic(self) -> bool:
        return self.event.origin != "client"

    def asks_the_same(self, other: "Asked") -> bool:
        """Whether one answer will do for both."""
        return self.event.is_heard == other.event.is_heard and _wish(self.event) == _wish(other.event)

    def may_be_answered_by(self, created: Json, *, echoes: bool) -> bool:
        """Whether this ``response.created`` is about this create."""
        metadata = events.response_metadata(self.event.data)
        if metadata and echoes and "metadata" in (events.response_of(created) or {}):
            return events.response_metadata(created) == metadata
        return events.is_out_of_band(self.event.data) == is_out_of_band(created)


@dataclass(slots=True, eq=False)
class State:
    """The lock of one session: taken while something is *asked*, *running*, *unknown* or *resting*."""

    asked: Asked | None = None
    """What went up and has not begun."""
    running: dict[str, Asked | None] = field(default_factory=dict)
    """The ids of the responses that are heard now, each with who asked; None where voice activity did."""
    unknown: object | None = None
    """A response is known to be active, by a refusal, and has not been announced."""
    resting: bool = False
    """A failed response is sent again after a pause."""
    waiting: deque[Asked] = field(default_factory=deque)
    echoes: bool = True
    """Whether the upstream repeats metadata. The ones that do not are found out by a time limit."""
    has_warned: bool = False
    keys: int = 0

    @property
    def is_free(self) -> bool:
        return self.asked is None and self.unknown is None and not self.running and not self.resting

    def new_key(self) -> str:
        self.keys += 1
        return str(self.keys)


def stamped(event: Event, data: Json, lent_id: str | None) -> Event:
    """The create with an ``event_id``, and with metadata if it has none; the same object if it has both."""
    changed = data if lent_id is None else events.with_event_id(data, lent_id)
    response = data.get("response")
    # Parameters that are no object, or metadata that are none, are for the upstream to refuse.
    if response is None or (isinstance(response, dict) and not response.get("metadata")):
        changed = events.with_create_metadata(changed, {STAMP: events.event_id_of(changed) or ""})
    return event if changed is data else event.replace(changed)


def unstamped(event: Event, data: Json) -> Event | None:
    """The server event without our stamp; None where it has none."""
    clean = events.without_response_metadata(data, STAMP)
    return None if clean is data else event.replace(clean)


def is_out_of_band(data: Json) -> bool:
    """Whether a response stays outside the conversation: its conversation is null. Where an upstream leaves
    the field out, the response counts as one of the conversation, as nearly all are."""
    return (events.response_of(data) or {}).get("conversation_id", "") is None


def may_be_tried_again(done: Json) -> bool:
    """Whether a response failed before it had any output, for a reason that may pass."""
    response = events.response_of(done) or {}
    if response.get("status") != "failed" or response.get("output"):
        return False
    details = response.get("status_details")
    error = details.get("error") if isinstance(details, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return errors.severity(code if isinstance(code, str) else None) in ("retry", None)


def _wish(event: Event) -> Json:
    response = events.response_of(event.data) or {}
    return {key: value for key, value in response.items() if key != "metadata"}
