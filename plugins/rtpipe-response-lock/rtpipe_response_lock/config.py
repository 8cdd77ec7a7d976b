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
    max_waiting: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="How many creates of one session may wait. One more is refused with an error.",
        ),
    ] = 100
    retry_failed: Annotated[
        int,
        Meta(
            ge=0,
            le=3,
            description="How often a create that a stage or the host made is sent again when its response "
            "fails before it said anything. After 1, 2 and 4 seconds.",
        ),
    ] = 0
    gate_turns: Annotated[
        bool,
        Meta(
            description="Have the caller's turns wait in line too: voice activity detection then no longer "
            "answers by itself, which costs one round trip to the model for each turn.",
        ),
    ] = False
