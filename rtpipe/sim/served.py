"""One session on a line: its faults, its log, its end."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from .faults import Fault, Faults, parse
from .line import Line
from .options import SimOptions
from .session import run_session


class Served:
    """`number`: of the connection, from 1. `more`: faults ordered for this session alone, before it was."""

    def __init__(
        self, line: Line, options: SimOptions, number: int = 1, more: list[Fault] | None = None
    ) -> None:
        self._line = line
        self._options = options
        self._number = number
        self._began = trio.current_time()
        scripted = options.scenario.faults if options.scenario else ()
        ordered = [fault for fault in map(parse, (*options.faults, *scripted)) if isinstance(fault, Fault)]
        self.faults = Faults(line, [*ordered, *(more or [])], lambda words: self._log("server", fault=words))
        self.id: str | None = None
        """The session's id, once session.created was sent."""

    async def run(self, *, model: str | None = None, bound: dict[str, Any] | None = None) -> None:
        """Serve the client until it or the session is gone, and close the line.

        `bound`: the session configuration of a client secret."""
        ending = await run_session(
            self._receive, self._send, self._options, model=model, bound=bound, order=self.faults.order
        )
        self._log("server", end={"code": ending.code, "reason": ending.reason})
        await self._line.close(ending.code, ending.reason)

    async def _receive(self) -> str | bytes | None:
        message = await self._line.receive()
        if message is None:
            self._log("client", end={})
            return None
        await self.faults.before(_kind(message), ours=False)
        self._log_event("client", message)
        await self.faults.after()
        return message

    async def _send(self, text: str) -> None:
        await self.faults.before(_kind(text), ours=True)
        await self._line.send(text)
        if self.id is None:
            self.id = msgspec.json.decode(text)["session"]["id"]
        self._log_event("server", text)
        await self.faults.after()

    def _log_event(self, sender: str, message: str | bytes) -> None:
        if self._options.log is None:
            return
        if _kind(message):
            self._log(sender, event=msgspec.Raw(message))
        else:
            self._log(sender, text=message if isinstance(message, str) else message.decode(errors="replace"))

    def _log(self, sender: str, **what: Any) -> None:
        if self._options.log is not None:
            at_s = round(trio.current_time() - self._began, 6)
            entry = {"session": self._number, "at_s": at_s, "from": sender, **what}
            self._options.log(msgspec.json.encode(entry).decode())


class _Typed(msgspec.Struct):
    type: str


def _kind(message: str | bytes) -> str:
    """The type of an event, "" of anything else."""
    try:
        return msgspec.json.decode(message, type=_Typed).type
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
