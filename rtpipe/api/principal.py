"""Who is calling."""

from collections.abc import Mapping
from typing import Any

import msgspec

SESSION = "session"
TOOLS = "tools"
TAP = "tap"
ADMIN = "admin"

END_USER = "end_user"
"""The label that says on whose behalf the caller speaks, where one key serves many."""

ROLES = (SESSION, TOOLS, TAP, ADMIN)


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller. ``None`` in an allow-list means anything; an empty set means nothing.

    The label ``end_user`` names whoever it speaks for, where one key serves many. ``limits`` are quantities
    (money, tokens, images, rates, minutes) that a governor enforces; the host only carries them. The
    allow-lists the host enforces, on what the client asks for; what stages set is the operator's.

    *session* is a session object of the protocol: what its sessions begin with, as if the client had asked
    for it. *credential* names what it was let in by, without being a secret, for the stage that judges it
    again (``still_allowed``); *expires_at* is until when that is good, in seconds since 1970. *persist*: the
    sessions that its clients name outlive the gateway's process.
    """

    id: str
    labels: Mapping[str, str] = {}
    roles: frozenset[str] = frozenset({SESSION})
    models: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    voices: frozenset[str] | None = None
    modalities: frozenset[str] | None = None
    limits: Mapping[str, str | int | float] = {}
    session: Mapping[str, Any] | None = None
    credential: str = ""
    expires_at: float | None = None
    persist: bool = False


ANONYMOUS = Principal(id="anonymous")
