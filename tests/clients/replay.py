"""The model's log of a run, played as transcripts to a session of rtpipe without sockets."""

import json
from pathlib import Path

import trio
from trio.testing import MockClock

from rtpipe.testing import ChainHarness, TranscriptError, play, transcript_of_log


class Log:
    """What ``rtpipe sim --log`` writes, run by run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def lines(self) -> list[str]:
        """Those since the last time."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        return text.decode().splitlines()


async def replayed(lines: list[str], sessions: int) -> str | None:
    """Have each of so many sessions of a log go through an empty chain: what is wrong first, or None."""
    return await trio.to_thread.run_sync(_replay, lines, sessions)


def _replay(lines: list[str], sessions: int) -> str | None:
    entries = [json.loads(line) for line in lines]
    logged = sorted(
        {each["session"] for each in entries if each.get("event", {}).get("type") == "session.created"}
    )
    if len(logged) != sessions:
        return f"{len(logged)} sessions in the log instead of {sessions}"
    for session in logged:
        failures: list[str] = []
        try:
            trio.run(_play, transcript_of_log(lines, session), clock=MockClock(autojump_threshold=0))
        except* TranscriptError as group:
            failures.append(f"session {session} of the log: {_first(group)}")
        if failures:
            return failures[0]
    return None


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def _play(transcript: str) -> None:
    async with ChainHarness({}) as chain:
        await play(transcript, chain)
