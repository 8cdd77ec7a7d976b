"""What may pass an event that waits, and what waits behind it: the hold ordering table.

When a stage holds an event, later events of the same direction either overtake it or queue behind it. That is
a property of the protocol, so it is data here and no plugin's opinion. Reasons: items, configuration, commits
and creates act on the conversation in the order they arrive; interrupting and looking up must not wait for
anything; audio keeps its order among itself and its place relative to the commit that closes it.
"""

from typing import Final, NamedTuple

from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Direction, Server


class Row(NamedTuple):
    """Events that queue alike. An event always waits behind a waiting event of its own type, in every row."""

    name: str
    types: tuple[str, ...]
    """Event types; one that ends in `*` stands for every type with that beginning. Empty: everything else."""
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
            frozenset({"audio", "commit and clear", "conversation"}),
        ),
        # Item create and delete, session.update, response.create, and what nobody knows yet.
        Row("conversation", (), frozenset({"commit and clear", "conversation"})),
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


def row_of(type_: str, direction: Direction) -> Row:
    """The row of the table an event type belongs to; unknown types belong to the last, most careful one."""
    for row in TABLE[direction]:
        for name in row.types:
            if type_ == name or (name[-1] == "*" and type_.startswith(name[:-1])):
                return row
    return TABLE[direction][-1]


def must_wait(later: str, held: str, direction: Direction) -> bool:
    """Whether an event of type `later` has to wait behind a waiting event of type `held`.

    Pairwise: an event waits if this is true for any event that waits before it (held, or itself queued).
    """
    return later == held or row_of(held, direction).name in row_of(later, direction).waits_behind


def as_markdown() -> str:
    """The table as a markdown document fragment, for documentation generated from what the code does."""
    lines = ["| direction | row | event types | waits behind a waiting |", "|---|---|---|---|"]
    for direction, rows in TABLE.items():
        for row in rows:
            types = ", ".join(f"`{name}`" for name in row.types) or "everything else, unknown types too"
            behind = ", ".join(sorted(row.waits_behind)) or "–"
            lines.append(f"| {direction} | {row.name} | {types} | {behind} |")
    lines += ["", "An event also waits behind every waiting event of its own type, whatever its row."]
    return "\n".join(lines) + "\n"
