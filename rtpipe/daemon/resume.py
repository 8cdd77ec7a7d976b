"""A client that comes back to its session: by a key of its own, which is kept as a hash and never logged."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rtpipe.api.errors import Refused
from rtpipe.api.principal import END_USER, Principal
from rtpipe.api.request import ConnectRequest

if TYPE_CHECKING:
    from rtpipe.session.session import Session

PARAMETER, AFTER = "rtpipe_session", "rtpipe_after"
HEADER, AFTER_HEADER = "rtpipe-session", "rtpipe-after"
SUBPROTOCOL = "rtpipe-session."
MIN_LENGTH, MAX_LENGTH = 16, 256

Place = tuple[str, str, bytes]
"""Whose key it is (principal and end user), and its hash: nobody finds another one's session."""


def place_of(request: ConnectRequest, principal: Principal) -> Place | None:
    """Where the session that the client names stands; None where it names none. Raises ``Refused``."""
    key = _key(request)
    if key is None:
        return None
    if not MIN_LENGTH <= len(key) <= MAX_LENGTH:
        message = (
            f"The key for the session ({PARAMETER}) has {len(key)} characters: "
            f"choose a random one of {MIN_LENGTH} to {MAX_LENGTH}."
        )
        raise Refused(400, "invalid_session_key", message)
    return principal.id, principal.labels.get(END_USER, ""), hashlib.sha256(key.encode()).digest()


def after_of(request: ConnectRequest) -> str | None:
    """The last event that the client has, if it says so."""
    found = [*request.query.get(AFTER, ()), *request.headers.get(AFTER_HEADER, ())]
    return (found[0] or None) if found else None  # a client that has none yet may say so


def names_session(request: ConnectRequest) -> bool:
    return _key(request) is not None


class Places:
    """The sessions that can be found by a key."""

    def __init__(self) -> None:
        self._sessions: dict[Place, Session] = {}

    def find(self, place: Place) -> "Session | None":
        """The session that stands there and has not ended."""
        session = self._sessions.get(place)
        return session if session is not None and session.ending is None else None

    @contextmanager
    def kept(self, place: Place | None, session: "Session") -> Iterator[None]:
        """Let *session* be found at *place*."""
        if place is None:
            yield
            return
        self._sessions[place] = session
        try:
            yield
        finally:
            if self._sessions.get(place) is session:
                del self._sessions[place]


def _key(request: ConnectRequest) -> str | None:
    offered = [name[len(SUBPROTOCOL) :] for name in request.subprotocols if name.startswith(SUBPROTOCOL)]
    found = [*request.query.get(PARAMETER, ()), *request.headers.get(HEADER, ()), *offered]
    return found[0] if found else None
