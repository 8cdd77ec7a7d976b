"""The composed session configuration: what the client asked, what stages made of it, what the upstream has.

Nobody but this module's owner sends a ``session.update``. Updates are answered in the order they were sent,
so those still unanswered form a queue.
"""

import copy
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rtpipe.api.event import Json
from rtpipe.protocol import session_config as sc

log = logging.getLogger("rtpipe.session")

_MISSING: Any = object()


class Draft:
    """The configuration on its way to the upstream, as ``configure`` hooks see it."""

    def __init__(self, asked: Json) -> None:
        self._asked = asked
        self.config = asked

    @property
    def asked(self) -> Json:
        return copy.deepcopy(self._asked)

    def get(self, path: str, default: Any = None) -> Any:
        return copy.deepcopy(sc.get(self.config, path, default))

    def set(self, path: str, value: Any) -> None:
        self.config = sc.set_(self.config, path, copy.deepcopy(value))

    def remove(self, path: str) -> None:
        self.config = sc.without(self.config, path)


@dataclass(slots=True)
class Sent:
    """An update the upstream has not yet answered."""

    event_id: str
    update: Json | None
    """The client's part; None when the host sent the update for its own reasons."""
    host_paths: frozenset[str]
    """What stages put in or changed."""
    target: Json
    """The configuration as it should be once this is accepted."""


@dataclass(slots=True)
class Outgoing:
    """What to send for an update. *session* is None when there is nothing to tell the upstream."""

    session: Json | None
    untouched: bool
    """Whether the client's own text says exactly this."""


@dataclass(slots=True)
class Configuration:
    """*asked* by the client, *effective* at the upstream, and the updates in between."""

    base: Json = field(default_factory=dict)
    """The session object of the upstream's ``session.created``: its defaults."""
    effective: Json = field(default_factory=dict)
    session_type: str = "realtime"
    _confirmed: Json = field(default_factory=dict)
    _target: Json = field(default_factory=dict)
    _confirmed_target: Json = field(default_factory=dict)
    _sent: deque[Sent] = field(default_factory=deque)
    _refused: set[str] = field(default_factory=set)

    @property
    def asked(self) -> Json:
        """What the client asked for, updates in flight included."""
        asked = self._confirmed
        for sent in self._sent:
            if sent.update is not None:
                asked = sc.merge(asked, sent.update)
        return asked

    def with_defaults(self, config: Json) -> Json:
        """*config* over the upstream's defaults."""
        return sc.merge(self.base, config)

    def compose(self, update: Json | None, draft: Json) -> tuple[Outgoing, frozenset[str]]:
        """What to send so that the upstream has *draft*, given the client's *update* (None: no update).

        Also returns the paths that are the host's doing.
        """
        asked = self.asked if update is None else sc.merge(self.asked, update)
        host_paths = frozenset(sc.changed_paths(asked, draft)) - self._refused - {"type"}
        named = sc.changed_paths({}, update) if update is not None else []
        moved = [path for path in sc.changed_paths(self._target, draft) if path not in self._refused]
        session: Json = {}
        for path in dict.fromkeys([*named, *moved]):
            if path in self._refused and sc.get(asked, path, _MISSING) != sc.get(draft, path, _MISSING):
                continue
            value = sc.get(draft, path, _MISSING)
            if value is _MISSING and path not in named:
                value = sc.get(self.base, path, _MISSING)
            if value is not _MISSING:
                session = sc.set_(session, path, value)
        if update is not None and not sc.changed_paths(session, update):
            return Outgoing(update, untouched=True), host_paths
        if not set(session) - {"type"}:
            return Outgoing(
                {"type": self._type(asked)} if update is not None else None, untouched=False
            ), host_paths
        return Outgoing({"type": self._type(asked), **session}, untouched=False), host_paths

    def sent(self, event_id: str, update: Json | None, host_paths: frozenset[str], draft: Json) -> None:
        """Remember an update that has just been sent."""
        self._sent.append(Sent(event_id, update, host_paths, draft))
        self._target = draft

    def confirmed(self, session: Json) -> bool:
        """The upstream has applied the oldest update. Returns whether the client caused it."""
        self.effective = session
        if not self._sent:
            return True
        sent = self._sent.popleft()
        self._confirmed_target = sent.target
        if sent.update is not None:
            self._confirmed = sc.merge(self._confirmed, sent.update)
        return sent.update is not None

    def rejected(self, event_id: str | None, param: str | None) -> Sent | None:
        """The upstream has refused an update as a whole. Returns it, or None if the error is about none.

        A field of the host's that the error names is not asked for again.
        """
        sent = self._find(event_id, param)
        if sent is None:
            return None
        self._sent.remove(sent)
        self._target = self._confirmed_target
        path = sc.param_to_path(param)
        blamed = {p for p in sent.host_paths if path is not None and (p == path or p.startswith(path + "."))}
        if not blamed and sent.update is None:
            blamed = set(sent.host_paths)
        if blamed:
            self._refused |= blamed
            log.warning("the upstream refuses %s; going on without", ", ".join(sorted(blamed)))
        return sent if blamed else Sent(sent.event_id, sent.update, frozenset(), sent.target)

    def shown(self, session: Json) -> Json:
        """The upstream's session object as the client may see it: with what the client asked, or the
        upstream's default, wherever a stage wanted something else. The same object if nothing differs."""
        asked = self._confirmed
        for path in sc.changed_paths(asked, self._confirmed_target):
            value = sc.get(asked, path, sc.get(self.base, path, _MISSING))
            if value is not _MISSING and value != sc.get(session, path, _MISSING):
                session = sc.set_(session, path, value)
        return session

    def upstream_replaced(self) -> None:
        """Another upstream takes over: it knows nothing yet, and may accept what the last one refused."""
        self._confirmed = self.asked
        self._sent.clear()
        self._refused.clear()
        self._target = self._confirmed_target = {}
        self.base = self.effective = {}

    def _find(self, event_id: str | None, param: str | None) -> Sent | None:
        for sent in self._sent:
            if event_id is not None and sent.event_id == event_id:
                return sent
        if event_id is None and self._sent and (param or "").startswith("session"):
            return self._sent[0]
        return None

    def _type(self, asked: Json) -> str:
        return str(asked.get("type", self.session_type))
