"""The audit log: who connected, what was refused, what an operator changed. One JSON object a line."""

import json
import logging
import os
from datetime import UTC, datetime

import msgspec
import trio

from rtpipe.api import facts
from rtpipe.api.errors import ConfigError
from rtpipe.api.facts import Fact

log = logging.getLogger("rtpipe.audit")

AUDITED = (facts.SessionOpened, facts.SessionClosed, facts.Refused, facts.Operated, facts.Alerted)
QUEUE_LINES = 10_000
WRITE_LIMIT_S = 2.0


class Audit:
    """Appends to one file, from a task of its own: a disk that hangs keeps no session waiting.

    Beyond ``QUEUE_LINES`` that wait, or when they cannot be written, lines are lost. That is logged when it
    begins, and the file says how many at most when it can be written again.
    """

    def __init__(self, path: str | None = None) -> None:
        """Without a *path* it writes nothing. Raises ``ConfigError`` when the file cannot be opened."""
        self._path = path
        self._lost = 0
        self._send, self._receive = trio.open_memory_channel[bytes](QUEUE_LINES)
        if path is None:
            return
        try:
            os.close(_open(path))
        except OSError as exc:
            raise ConfigError(f"audit.file: cannot append to {path}: {exc.strerror}") from None

    def fact(self, fact: Fact) -> None:
        """Write *fact*, if it belongs there."""
        if self._path is None or not isinstance(fact, AUDITED):
            return
        try:
            self._send.send_nowait(_line(type(fact).__name__, msgspec.to_builtins(fact)))
        except trio.WouldBlock:
            self._lose(1, "too much waits to be written")

    async def run(self) -> None:
        """Write what comes until cancelled, then what is left."""
        try:
            async for line in self._receive:
                await self._write([line, *self._waiting()])
        finally:
            if left := self._waiting():
                await self._write(left)

    def _waiting(self) -> list[bytes]:
        lines = []
        while True:
            try:
                lines.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                return lines

    async def _write(self, lines: list[bytes]) -> None:
        if self._lost:
            lines = [_line("Lost", {"count": self._lost}), *lines]
        try:
            # Shielded: what is cancelled in the thread is written all the same, at some time or other.
            with trio.CancelScope(shield=True), trio.fail_after(WRITE_LIMIT_S):
                await trio.to_thread.run_sync(self._append, b"".join(lines), abandon_on_cancel=True)
        except OSError as exc:
            self._lose(len(lines), exc.strerror or type(exc).__name__)
        except trio.TooSlowError:
            self._lose(len(lines), "the disk does not answer")
        else:
            self._lost = 0

    def _append(self, data: bytes) -> None:
        assert self._path is not None
        # Opened anew for each batch: whoever rotates it just moves it away.
        descriptor = _open(self._path)
        try:
            if _ends_in_mid_line(descriptor):
                data = b"\n" + data
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def _lose(self, count: int, why: str) -> None:
        if not self._lost:
            log.error("the audit log %s is losing lines: %s", self._path, why)
        self._lost += count


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _ends_in_mid_line(descriptor: int) -> bool:
    """Whether a full disk, or the end of the machine, cut the last line off."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _line(kind: str, fields: dict[str, object]) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    # ASCII: nothing in it plays with the terminal of whoever reads it.
    return json.dumps({"time": now, "fact": kind, **fields}).encode() + b"\n"
