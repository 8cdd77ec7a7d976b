"""What an operator may write about what a session survives."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from rtpipe.api.secret import Secret

MIB = 1024 * 1024


class SessionTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a session survives, and what it keeps for that."""

    outage_s: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="How long a session whose upstream is lost looks for another one, which is told the "
            "conversation. It is dialled, too, before the upstream ends a session by its own time limit. "
            "0: a lost upstream ends the session.",
        ),
    ] = 30.0
    rollover_s: Annotated[
        float,
        Meta(
            ge=1,
            le=1800,
            description="How long before that time limit the other upstream is dialled. It takes over when "
            "nobody speaks.",
        ),
    ] = 60.0
    on_cut: Annotated[
        Literal["close", "retry"],
        Meta(
            description="An answer that was cut ends with status `failed`. `retry`: the gateway asks for it "
            "again, unless part of it was complete."
        ),
    ] = "close"
    conversation_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=64 * MIB,
            description="The log of one conversation, images apart; the oldest items are forgotten first.",
        ),
    ] = MIB
    image_bytes: Annotated[
        int, Meta(ge=0, le=1024 * MIB, description="The images in it; of the oldest, a word is left.")
    ] = 8 * MIB
    outage_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=64 * MIB,
            description="Client events that wait while there is no upstream, each with 1 KiB on top; old "
            "audio gives way first.",
        ),
    ] = 4 * MIB
    resume_window_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="How long a session whose client named it by a key waits for that client to come "
            "back. 0: nobody resumes.",
        ),
    ] = 60.0
    while_parked: Annotated[
        Literal["go_on", "pause"],
        Meta(
            description="Answers while it is away. `pause`: they are cancelled, which ends their bill, and "
            "asked for again when it is back, from their beginning, unless part of one was complete."
        ),
    ] = "go_on"
    parked_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            le=64 * MIB,
            description="Server events that wait meanwhile, audio apart; past it the session ends.",
        ),
    ] = MIB
    parked_audio_s: Annotated[
        float, Meta(ge=0, le=60, description="Audio that waits meanwhile; what comes later is dropped.")
    ] = 5.0
    second_client: Annotated[
        Literal["replace", "refuse"],
        Meta(description="A client that names a session which has one: it takes its place, or gets a 409."),
    ] = "replace"


class PersistKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that sessions are encrypted with."""

    id: Annotated[
        str,
        Meta(pattern="^[A-Za-z0-9._-]{1,64}$", description="Its name, which stands in what it encrypts."),
    ]
    secret: Annotated[
        Secret,
        Meta(description="Where the key is found: at least 32 characters (`openssl rand -base64 32`)."),
    ]


class Persist(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sessions that outlive the daemon: those of callers with `persist`, if their clients have named them.

    What is written of them is encrypted (AES-256-GCM).
    """

    keys: Annotated[
        tuple[PersistKey, ...],
        Meta(
            description="The first encrypts, every one decrypts: put a new one in front, and keep the old "
            "ones for `retention_h`. Without any, nothing is written.",
            examples=[[{"id": "2026-11", "secret": {"credential": "session-key"}}]],
        ),
    ] = ()
    retention_h: Annotated[
        float,
        Meta(
            ge=0.1,
            le=8760,
            description="How long a session that the end of the daemon has cut off can be taken up again; "
            "then what is written of it is deleted.",
        ),
    ] = 24.0
