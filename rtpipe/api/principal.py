"""Who is calling."""

from collections.abc import Mapping

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
    (money, tokens, images, rates, minutes) that a governor enforces; the host only carries them.
    """

    id: str
    labels: Mapping[str, str] = {}
    roles: frozenset[str] = frozenset({SESSION})
    models: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    voices: frozenset[str] | None = None
    modalities: frozenset[str] | None = None
    limits: Mapping[str, str | int | float] = {}


ANONYMOUS = Principal(id="anonymous")
