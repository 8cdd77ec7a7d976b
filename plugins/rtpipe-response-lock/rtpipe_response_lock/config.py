"""What the operator writes."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.response-lock]``."""

    created_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="How long the lock waits for the response.created of a response.create that went up. "
            "After that the create counts as lost and the next one goes.",
        ),
    ] = 10.0
