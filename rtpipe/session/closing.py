"""How the end of one leg is told to the other. Codes travel as data; 1005, 1006, 1015 never on the wire."""

from dataclasses import dataclass

from rtpipe.chain.walk import WIRE_CODES
from rtpipe.transport.connection import Closing

NORMAL = 1000
GOING_AWAY = 1001
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
NO_STATUS = 1005
_PASSING = frozenset({GOING_AWAY, NO_STATUS, INTERNAL_ERROR, SERVICE_RESTART, 1013, 1014})


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session ended. *cause* is client, upstream, host, or a stage's name.

    *code* and *reason* are for the legs that are still there. *error* is told to the client before its
    close frame, as (code, message). *detail* is for the log: what became of the leg that ended it.
    """

    code: int
    reason: str
    cause: str
    error: tuple[str, str] | None = None
    detail: str = ""


def client_ended(closing: Closing) -> Ending:
    """The client's end, as the upstream hears it."""
    if closing.code == NO_STATUS:
        return Ending(NORMAL, "", "client")
    if not _said_by_peer(closing):
        return Ending(GOING_AWAY, "client connection lost", "client", detail=_detail(closing))
    return Ending(closing.code, closing.reason, "client")


def upstream_ended(closing: Closing) -> Ending:
    """The upstream's end, as the client hears it; one without a code is never called a normal one."""
    if _said_by_peer(closing):
        return Ending(closing.code, closing.reason, "upstream")
    message = "The connection to the model was lost; the session cannot go on."
    error = ("upstream_connection_lost", message)
    return Ending(INTERNAL_ERROR, "upstream connection lost", "upstream", error, _detail(closing))


def may_be_replaced(closing: Closing) -> bool:
    """Whether another upstream may take over from one that ended so: it broke, was going away or out of
    order; not where it wanted this session to end, or we did because it broke the protocol."""
    return not closing.clean or (not closing.ours and closing.code in _PASSING)


def may_come_back(closing: Closing) -> bool:
    """Whether a client whose connection ended so may want to go on: not one that said goodbye, or broke the
    protocol."""
    return not closing.clean or (not closing.ours and closing.code not in (NORMAL, NO_STATUS))


def _said_by_peer(closing: Closing) -> bool:
    """Whether code and reason are the peer's own words: only those are for the other leg. A code that we gave
    for the peer's fault would blame whoever stands on the other side."""
    return closing.clean and not closing.ours and closing.code in WIRE_CODES


def _detail(closing: Closing) -> str:
    return f"{closing.code} {closing.reason}".rstrip()
