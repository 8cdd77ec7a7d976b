"""What an operator may write about what callers can use up."""

from typing import Annotated

from msgspec import Meta, Struct

MIB = 1024 * 1024


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one caller, or all of them, may make the daemon hold or wait for."""

    max_sessions: Annotated[
        int, Meta(ge=1, le=100_000, description="Sessions at a time; more are refused with a 503.")
    ] = 1000
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Connections to the listeners at a time, sessions or not; more are answered 503.",
        ),
    ] = 4096
    max_connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="The same from one address, or one user of a Unix socket; more are answered 429. "
            "Behind a balancer set `proxy`, or all callers have one address.",
        ),
    ] = 1024
    max_memory_bytes: Annotated[
        Annotated[int, Meta(ge=64 * MIB, le=MIB * MIB)] | None,
        Meta(
            description="What the process may have; at 90 % of it new sessions are refused with a 503, as "
            "they are at 90 % of the file descriptors. Unset: what its cgroup allows, if that is limited.",
            examples=[2048 * MIB],
        ),
    ] = None
    max_head_bytes: Annotated[
        int, Meta(ge=4096, le=MIB, description="The head of a request; a longer one is answered 431.")
    ] = 64 * 1024
    max_message_bytes: Annotated[
        int, Meta(ge=64 * 1024, le=64 * MIB, description="The largest event, in either direction.")
    ] = 16 * MIB
    max_reassembly_bytes: Annotated[
        int,
        Meta(
            ge=16 * MIB,
            le=64 * 1024 * MIB,
            description="Messages of which only part has come, over all connections; past it the connection "
            "that sends more is closed with 1013.",
        ),
    ] = 256 * MIB
    handshake_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=120, description="What a new connection may take to send its whole request."),
    ] = 10.0
    connect_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=120, description="What authenticating, opening and dialling may take together."),
    ] = 8.0
    write_deadline_s: Annotated[
        float,
        Meta(ge=0.1, le=120, description="A connection that takes none of its bytes for so long is closed."),
    ] = 10.0
    drain_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="How long a daemon that is told to stop lets answers in progress be finished and "
            "heard; 0: not at all. The service manager must wait 30 s longer (`TimeoutStopSec`).",
        ),
    ] = 60.0
    bill_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="How long a session that has ended waits for what its last answer, now cancelled, "
            "came to; the model's server is left after that.",
        ),
    ] = 10.0
    hold_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=1024 * MIB,
            description="Events that one stage may hold back in one direction of one session.",
        ),
    ] = 32 * MIB
    max_held_bytes: Annotated[
        int,
        Meta(
            ge=MIB,
            le=64 * 1024 * MIB,
            description="The same over all stages and sessions, with what waits in `outage_bytes`, and what "
            "sessions keep whose clients are gone; past it every queue counts as full.",
        ),
    ] = 256 * MIB
    hold_age_s: Annotated[
        float, Meta(ge=0.1, le=3600, description="How long a stage may hold one event back.")
    ] = 30.0
    inject_events: Annotated[
        int,
        Meta(
            ge=1, le=100_000, description="Events of plugins that may wait in one direction of one session."
        ),
    ] = 1000
    watch_events: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Events that may wait for one watching stage of one session; more are missed.",
        ),
    ] = 1000
