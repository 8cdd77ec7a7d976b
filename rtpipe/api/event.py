"""The event: one JSON object on its way between a client and an upstream."""

from typing import Any, Self

import msgspec

Json = dict[str, Any]

CLIENT = "client"
UPSTREAM_ORIGIN = "upstream"
HOST = "host"

_encode = msgspec.json.Encoder().encode


class UnreadableEvent(ValueError):
    """The received text is not a JSON object a plugin could read."""


class Event:
    """One immutable event.

    ``payload`` is the truth: the UTF-8 text as it was received, or as the maker of the event wrote
    it. ``data`` is a decoded copy that belongs to whoever reads it here; changing it changes nothing.
    A hook that wants another event on the wire returns ``event.replace(data)``.

    ``origin`` says who caused the event: ``"client"``, ``"upstream"``, ``"host"``, or the
    name of a stage, which the host fills in.
    ``audible`` is set on a plugin's ``response.create`` whose answer the client may see and hear.
    """

    __slots__ = ("_data", "audible", "origin", "payload", "type")

    type: str
    payload: bytes
    origin: str
    audible: bool

    def __init__(self, data: Json, *, origin: str = "", audible: bool = False) -> None:
        """Make an event from a JSON object with a ``type``.

        Raises ``TypeError`` when *data* cannot be written as JSON and ``ValueError`` without a type.
        """
        kind = data.get("type")
        if not isinstance(kind, str) or not kind:
            raise ValueError("an event needs a type: Event({'type': '…', …})")
        self.type = kind
        self.payload = _encode(data)
        self.origin = origin
        self.audible = audible
        self._data: Json | None = None

    @classmethod
    def received(cls, payload: bytes, kind: str, origin: str, *, audible: bool = False) -> Self:
        """Wrap text that came over a connection; *kind* is its ``type``, already read."""
        event = cls.__new__(cls)
        event.type = kind
        event.payload = payload
        event.origin = origin
        event.audible = audible
        event._data = None
        return event

    @property
    def data(self) -> Json:
        """The decoded object. Raises ``UnreadableEvent`` when the text is not a JSON object."""
        if self._data is None:
            try:
                data = msgspec.json.decode(self.payload)
            except (msgspec.MsgspecError, RecursionError, ValueError) as exc:
                raise UnreadableEvent(f"{self.type or 'an event'}: {type(exc).__name__}") from None
            if not isinstance(data, dict):
                raise UnreadableEvent("an event is a JSON object")
            self._data = data
        return self._data

    def replace(self, data: Json) -> "Event":
        """The same event with other content: origin and audibility are kept."""
        return Event(data, origin=self.origin, audible=self.audible)

    def copy(self, origin: str | None = None, *, audible: bool | None = None) -> "Event":
        """The same text without the decoded copy, for the next reader; perhaps of another origin."""
        return Event.received(
            self.payload,
            self.type,
            self.origin if origin is None else origin,
            audible=self.audible if audible is None else audible,
        )

    @property
    def is_heard(self) -> bool:
        """Whether the client gets the answer to this ``response.create``: its own, the host's, or an audible
        one of a plugin's."""
        return self.audible or self.origin in (CLIENT, HOST)

    @property
    def was_read(self) -> bool:
        """Whether somebody asked this object for ``data``."""
        return self._data is not None

    @property
    def was_changed_in_place(self) -> bool:
        """Whether ``data`` was altered instead of replaced: a mistake the guard names."""
        if self._data is None:
            return False
        try:
            return bool(msgspec.json.decode(self.payload) != self._data)
        except Exception:  # noqa: BLE001 — whatever was put in there cannot even be compared
            return True

    def __repr__(self) -> str:
        # The payload holds what callers said: it stays out of logs and tracebacks.
        return f"<Event {self.type!r} from {self.origin}, {len(self.payload)} bytes>"
