"""What an event hook may decide. ``None`` passes the event on untouched."""

from collections.abc import Sequence
from dataclasses import dataclass

from rtpipe.api.event import Event


@dataclass(frozen=True, slots=True)
class Drop:
    """The event goes no further.

    A client whose event is dropped is told so by an ``error`` event carrying *reason* and *code*, unless
    ``ours`` says that the plugin itself caused the event or answers it in another way.
    """

    reason: str
    ours: bool = False
    code: str = "event_dropped"


@dataclass(frozen=True, slots=True)
class Hold:
    """The event waits at this stage until ``session.release(key)`` or ``session.drop_held(key, …)``.

    The host keeps the queue, bounded in bytes and age, and lets nothing overtake the event that the
    ordering table forbids. *event*, if given, waits and goes on in its place.
    """

    key: str
    event: Event | None = None


@dataclass(frozen=True, slots=True, init=False)
class Reply:
    """The event turns round: these events walk back from this stage to where it came from."""

    events: tuple[Event, ...]

    def __init__(self, *events: Event) -> None:
        object.__setattr__(self, "events", events)


@dataclass(frozen=True, slots=True)
class Reject:
    """The client's event is refused: it gets an OpenAI-shaped ``error`` with its own ``event_id``."""

    event: Event
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Close:
    """The session ends: both legs are closed with this code (1000–4999) and reason."""

    code: int
    reason: str


Verdict = None | Event | Sequence[Event] | Drop | Hold | Reply | Reject | Close


def reject(event: Event, code: str, message: str) -> Reject:
    """Refuse *event*: ``return reject(event, "images_not_allowed", "This key may not send images.")``."""
    return Reject(event, code, message)
