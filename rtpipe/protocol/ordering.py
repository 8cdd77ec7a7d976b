"""What may pass an event that waits, and what waits behind it: the hold ordering table.

When a stage holds an event, later events of the same direction either overtake it or queue behind it. That is
a property of the protocol, so it is data here and no plugin's opinion. Reasons: items, configuration, commits
and creates act on the conversation in the order they arrive; interrupting and looking up must not wait for
anything; audio keeps its order among itself and its place relative to the commit that closes it.
"""

from typing import Final, NamedTuple

from rtpipe.protocol import events
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Direction, Json, Server

SILENT_CREATE: Final = "response.create, silent"
"""The kind of a `response.create` for a response outside the conversation that nobody hears. It is the one
kind that the type of an event does not tell."""


class Row(NamedTuple):
    """Events that queue alike. An event always waits behind a waiting event of its own kind, in every row."""

    name: str
    kinds: tuple[str, ...]
    """Event types, or `SILENT_CREATE`; one that ends in `*` stands for every type with that beginning. Empty:
    everything else."""
    waits_behind: frozenset[str]
    """Names of the rows whose waiting events these wait behind."""


TABLE: Final[dict[Direction, tuple[Row, ...]]] = {
    UPSTREAM: (
        Row(
            "interrupt and look up",
            (Client.RESPONSE_CANCEL, Client.ITEM_TRUNCATE, Client.ITEM_RETRIEVE, Client.OUTPUT_AUDIO_CLEAR),
            frozenset(),
        ),
        Row("audio", (Client.AUDIO_APPEND,), frozenset({"commit and clear"})),
        Row(
            "commit and clear",
            (Client.AUDIO_COMMIT, Client.AUDIO_CLEAR),
            frozenset({"audio", "commit and clear", "voices", "silent responses", "conversation"}),
        ),
        # What is heard is heard one at a time. What is not may run beside it, but sees the conversation.
        Row("voices", (Client.RESPONSE_CREATE,), frozenset({"commit and clear", "voices", "conversation"})),
        Row(
            "silent responses",
            (SILENT_CREATE,),
            frozenset({"commit and clear", "silent responses", "conversation"}),
        ),
        # Item create and delete, session.update, and what nobody knows yet.
        Row(
            "conversation",
            (),
            frozenset({"commit and clear", "voices", "silent responses", "conversation"}),
        ),
    ),
    DOWNSTREAM: (
        Row("session", ("session.*",), frozenset({"session"})),
        Row(
            "speech",
            (Server.SPEECH_STARTED, Server.SPEECH_STOPPED, Server.TIMEOUT_TRIGGERED),
            frozenset({"speech"}),
        ),
        Row(
            "transcription", ("conversation.item.input_audio_transcription.*",), frozenset({"transcription"})
        ),
        Row("notices", (Server.ERROR, Server.RATE_LIMITS_UPDATED), frozenset()),
        Row("conversation", (), frozenset({"conversation"})),
    ),
}


def kind_of_create(create: Json, *, heard: bool, session: Json) -> str:
    """The kind of a `response.create`; every other event's kind is its type.

    `heard`: whether the client gets what it is answered. `session`: the session's configuration in force.
    """
    silent = events.is_out_of_band(create) and not (heard and events.speaks(create, session))
    return SILENT_CREATE if silent else Client.RESPONSE_CREATE


def row_of(kind: str, direction: Direction) -> Row:
    """The row of the table a kind belongs to; unknown types belong to the last, most careful one."""
    for row in TABLE[direction]:
        for name in row.kinds:
            if kind == name or (name[-1] == "*" and kind.startswith(name[:-1])):
                return row
    return TABLE[direction][-1]


def must_wait(later: str, held: str, direction: Direction) -> bool:
    """Whether an event of kind `later` has to wait behind a waiting event of kind `held`.

    Pairwise: an event waits if this is true for any event that waits before it (held, or itself queued).
    """
    return later == held or row_of(held, direction).name in row_of(later, direction).waits_behind


def as_markdown() -> str:
    """The table as a markdown document fragment, for documentation generated from what the code does."""
    lines = ["| direction | row | events | waits behind a waiting |", "|---|---|---|---|"]
    for direction, rows in TABLE.items():
        for row in rows:
            kinds = ", ".join(f"`{name}`" for name in row.kinds)
            behind = ", ".join(sorted(row.waits_behind)) or "–"
            lines.append(
                f"| {direction} | {row.name} | {kinds or 'everything else, unknown types too'} | {behind} |"
            )
    lines += [
        "",
        f'`{SILENT_CREATE}`: one with `conversation: "none"` whose answer has no audio or is hidden.',
        "An event also waits behind every waiting event of its own kind, whatever its row.",
    ]
    return "\n".join(lines) + "\n"
