"""The composed session configuration: what the client asked, what stages made of it, what the upstream has.

Nobody but this module's owner sends a ``session.update``. Updates are answered in the order they were sent,
so those still unanswered form a queue.
"""

import copy
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rtpipe.api.event import Json
from rtpipe.protocol import session_config as sc

log = logging.getLogger("rtpipe.session")

_MISSING: Any = object()


class Draft:
    """The configuration on its way to the upstream, as ``configure`` hooks see it."""

    def __init__(self, asked: Json) -> None:
        self._asked = asked
        self.config = asked
        self.required: set[str] = set()

    @property
    def asked(self) -> Json:
        return copy.deepcopy(self._asked)

    def get(self, path: str, default: Any = None) -> Any:
        return copy.deepcopy(sc.get(self.config, path, default))

    def set(self, path: str, value: Any) -> None:
        # By way of JSON: a copy, and what cannot be sent fails here, in the hook that made it.
        path, value = msgspec.json.decode(msgspec.json.encode([path, value]))
        self.config = sc.set_(self.config, path, value)

    def remove(self, path: str) -> None:
        self.config = sc.without(self.config, path)

    def require(self, path: str) -> None:
        self.required.add(path)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What to send for an update. *session* is None when there is nothing to tell the upstream."""

    session: Json | None
    untouched: bool
    """Whether the client's own text says exactly this."""
    host_paths: frozenset[str]
    """What stages put in or changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """An update the upstream has not yet answered."""

    event_id: str
    update: Json | None
    """The client's part; None when the host sent the update for its own reasons."""
    host_paths: frozenset[str]
    told: Json
    """The session object as it was sent."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An update the upstream has refused. *again* is the client's part to send once more, None where the
    client is to hear of the error, or has nothing to do with it. *unmet*: what is required was refused."""

    event_id: str
    by_client: bool
    again: Json | None
    unmet: bool = False


@dataclass(slots=True)
class Configuration:
    """*asked* by the client, *effective* at the upstream, and the updates in between."""

    base: Json = field(default_factory=dict)
    """The session object of the upstream's ``session.created``: its defaults."""
    effective: Json = field(default_factory=dict)
    session_type: str = "realtime"
    required: frozenset[str] = frozenset()
    """What stages do not go on without."""
    _confirmed: Json = field(default_factory=dict)
    _told: Json = field(default_factory=dict)
    """What the upstream was told and has confirmed, over its defaults."""
    _sent: deque[Sent] = field(default_factory=deque)
    _refused: set[str] = field(default_factory=set)

    @classmethod
    def begun(cls, session_type: str, session: Mapping[str, Any] | None) -> "Configuration":
        """One in which the client counts as having asked for *session* already."""
        return cls(session_type=session_type, _confirmed=sc.as_update(session or {}))

    def restore(self, asked: Json) -> None:
        """The client has asked for this, of another process."""
        self._confirmed = asked

    @property
    def asked(self) -> Json:
        """What the client asked for, updates in flight included."""
        asked = self._confirmed
        for sent in self._sent:
            if sent.update is not None:
                asked = sc.merge(asked, sent.update)
        return asked

    @property
    def in_flight(self) -> int:
        """How many updates the upstream has not yet answered."""
        return len(self._sent)

    def with_defaults(self, config: Json) -> Json:
        """*config* over the upstream's defaults."""
        return {"type": self.session_type, **sc.merge(self.base, config)}

    def compose(self, update: Json | None, draft: Json) -> Outgoing:
        """What to send so that the upstream has *draft*, given the client's *update* (None: no update)."""
        asked = self.asked if update is None else sc.merge(self.asked, update)
        for path in self._refused - self.required:
            value = sc.get(asked, path, _MISSING)
            draft = sc.without(draft, path) if value is _MISSING else sc.set_(draft, path, value)
        target = self._target
        named = sc.changed_paths({}, update) if update is not None else []
        moved = [
            path
            for path in sc.changed_paths(target, draft)
            if self._or_default(target, path) != self._or_default(draft, path)
            and (update is not None or path not in self._refused)
        ]
        session: Json = {}
        for path in dict.fromkeys([*named, *moved]):
            value = sc.get(draft, path, _MISSING)
            if value is _MISSING and sc.get(target, path, _MISSING) is not _MISSING:
                value = sc.get(self.base, path, _MISSING)
            if value is not _MISSING and path != "type":
                session = sc.set_(session, path, value)
        if update is None and not session:
            return Outgoing(None, untouched=False, host_paths=frozenset())
        if update is None:
            host_paths = frozenset(sc.changed_paths({}, session))
        else:
            host_paths = frozenset(sc.changed_paths(asked, draft)) - {"type"}
            added = [path for path in sc.changed_paths({}, session) if path not in named]
            odd = bool(host_paths) and sc.has_odd_container(update)
            same = all(sc.get(draft, p, _MISSING) == sc.get(update, p, _MISSING) for p in named)
            if same and not (added or odd):
                return Outgoing(update, untouched=True, host_paths=host_paths)
        return Outgoing(
            {"type": asked.get("type", self.session_type), **session}, untouched=False, host_paths=host_paths
        )

    def sent(self, event_id: str, update: Json | None, outgoing: Outgoing) -> None:
        """Remember an update that is being sent."""
        self._sent.append(Sent(event_id, update, outgoing.host_paths, outgoing.session or {}))

    def confirmed(self, session: Json) -> bool:
        """The upstream has applied the oldest update. Returns whether the client caused it."""
        self.effective = session
        if not self._sent:
            return True
        sent = self._sent.popleft()
        self._told = sc.merge(self._told, sent.told)
        if sent.update is not None:
            self._confirmed = sc.merge(self._confirmed, sent.update)
        return sent.update is not None

    def rejected(self, event_id: str | None, param: str | None) -> Rejected | None:
        """The upstream has refused an update as a whole. Returns None if the error is about none.

        A field of the host's that the error names is not asked for again.
        """
        sent = self._find(event_id, param)
        if sent is None:
            return None
        later = list(self._sent)[self._sent.index(sent) + 1 :]
        self._sent.remove(sent)
        path = sc.param_to_path(param)
        blamed = {p for p in sent.host_paths if path is not None and (p == path or p.startswith(path + "."))}
        if not blamed and sent.update is None:
            blamed = set(sent.host_paths)
        if blamed & self.required:
            return Rejected(sent.event_id, sent.update is not None, again=None, unmet=True)
        if blamed:
            self._refused |= blamed
            log.warning("the upstream refuses %s; going on without", ascii(", ".join(sorted(blamed))))
        again = sent.update if blamed else None
        if again is not None:
            # It will come after what the client has sent since, and must not undo that.
            for overtaken in (p for each in later for p in sc.changed_paths({}, each.update or {})):
                again = sc.without(again, overtaken)
        return Rejected(sent.event_id, sent.update is not None, again)

    def shown(self, session: Json) -> Json:
        """The upstream's session object as the client may see it: with what the client asked, or the
        upstream's default, wherever a stage wanted something else. The same object if nothing differs."""
        for path in sc.changed_paths(self._confirmed, self._told):
            value = self._or_default(self._confirmed, path)
            if path == "type" or value == sc.get(session, path, _MISSING):
                continue
            session = sc.without(session, path) if value is _MISSING else sc.set_(session, path, value)
        return session

    def upstream_replaced(self) -> str | None:
        """Another upstream takes over: it knows nothing yet, and may accept what the last one refused.

        Returns the id of the last update of the client's that the old one has not answered.
        """
        waits_for = next((s.event_id for s in reversed(self._sent) if s.update is not None), None)
        self._confirmed = self.asked
        self._sent.clear()
        self._refused.clear()
        self._told = {}
        self.base = self.effective = {}
        return waits_for

    @property
    def _target(self) -> Json:
        """What the upstream will have been told when it has accepted all that is in flight."""
        told = self._told
        for sent in self._sent:
            told = sc.merge(told, sent.told)
        return told

    def _or_default(self, config: Json, path: str) -> Any:
        return sc.get(config, path, sc.get(self.base, path, _MISSING))

    def _find(self, event_id: str | None, param: str | None) -> Sent | None:
        for sent in self._sent:
            if event_id is not None and sent.event_id == event_id:
                return sent
        if event_id is None and self._sent and (param or "").startswith("session"):
            return self._sent[0]
        return None
