"""Logs of the simulated model as transcripts: what happened once, for a chain to go through again."""

from collections.abc import Iterable

import msgspec

from rtpipe.testing.transcript import TranscriptError


class _Entry(msgspec.Struct):
    sender: str = msgspec.field(name="from")
    session: int
    event: dict[str, object] | None = None


def transcript_of_log(lines: Iterable[str], session: int = 1) -> str:
    """The transcript of one session of a log (``rtpipe sim --log``, or ``SimOptions.log``), by its number.

    It expects of a chain that every event passes as it came; where a plugin is to change something, change
    the line. It ends with the last event: how the connection ended is not part of it, since what a client is
    told of that is the gateway's affair. What a client sent that is no event is left out, with its answer
    kept. Raises ``TranscriptError`` for a log that cannot be read or has no such session.
    """
    steps: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except msgspec.DecodeError as exc:
            raise TranscriptError(f"line {number} of the log: {exc}") from None
        if entry.session != session or entry.event is None:
            continue
        ends = ("client", "upstream") if entry.sender == "client" else ("upstream", "client")
        kind = entry.event.pop("type")
        fields = msgspec.json.encode(entry.event).decode()
        steps += [f"{ends[0]} -> {kind} {fields}", f"{ends[1]} <- {kind} {fields}"]
    if not steps:
        raise TranscriptError(f"the log has no event of session {session}")
    return "\n".join(steps) + "\n"
