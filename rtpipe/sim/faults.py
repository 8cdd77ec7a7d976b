"""Faults: the words they are ordered with, and their moments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from .line import Line

GRAMMAR = """\
drop [rst]                       cut the socket without a close frame: FIN, or a TCP reset
stall                            read and write nothing more, and keep the socket
slow N bytes/s | slow N ms       send no faster, or wait so long before each event
garbage KIND                     send one thing that is no event: json, type, binary, utf8, frame
close CODE [REASON]              close with this WebSocket code
... after N events               when N events have passed in either direction since it was ordered
... before TYPE                  before the next event of this type, the client's or the server's
refuse STATUS [retry-after S] [times N]   answer handshakes with this HTTP status
hang [times N]                   take connections and never answer them
"""

# A frame of a server: final and text (0x81), final and binary (0x82), a reserved opcode (0x83); its length.
_TEXTS = {"json": '{"type": "response.', "type": '{"type":"no.such.event","event_id":"event_garbage"}'}
_FRAMES = {"binary": b"\x82\x03\x00\xff\x00", "utf8": b"\x81\x02\xc3\x28", "frame": b"\x83\x00"}
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}

_MOMENT = re.compile(r"\s+(?:after\s+(?P<after>\d{1,9})\s+events?|before\s+(?P<before>[a-z_.]+))$")
_WHAT = re.compile(
    r"(?P<drop>drop(?:\s+(?P<rst>rst))?)"
    r"|(?P<stall>stall)"
    r"|(?P<slow>slow\s+(?P<rate>\d{1,9})\s*(?P<unit>bytes/s|ms))"
    rf"|(?P<garbage>garbage\s+(?P<kind>{'|'.join([*_TEXTS, *_FRAMES])}))"
    r"|(?P<close>close\s+(?P<code>\d{4})(?:\s+(?P<reason>.{1,100}))?)"
)
_REFUSAL = re.compile(
    r"(?:refuse\s+(?P<status>[45]\d\d)(?:\s+retry-after\s+(?P<retry>\d{1,9}))?|hang)"
    r"(?:\s+times\s+(?P<times>[1-9]\d{0,8}))?$"
)


class FaultError(ValueError):
    """The words order no fault, or one that is not possible here; the text says so in one line."""


@dataclass(frozen=True)
class Fault:
    """A fault of a session's line. `what`: drop, stall, slow, garbage or close; `how`: its parameter.

    Without `after` (events in either direction) and `before` (an event type) it happens at once."""

    words: str
    what: str
    how: str = ""
    amount: int = 0
    after: int = 0
    before: str = ""


@dataclass(frozen=True)
class Refusal:
    """A fault of the door. `status` None: it never answers. `times`: of handshakes; None: all."""

    words: str
    status: int | None
    headers: tuple[tuple[str, str], ...] = ()
    times: int | None = None


def parse(words: str) -> Fault | Refusal:
    """Read one order, as in GRAMMAR. Raises FaultError."""
    words = words.strip()
    if found := _REFUSAL.match(words):
        retry = (("Retry-After", found["retry"]),) if found["retry"] else ()
        times = int(found["times"]) if found["times"] else None
        return Refusal(words, int(found["status"]) if found["status"] else None, retry, times)
    moment = _MOMENT.search(words)
    found = _WHAT.fullmatch(words[: moment.start()] if moment else words)
    if not found:
        raise FaultError(f"{words!r:.200} orders no fault: rtpipe sim --help shows the words")
    what = next(name for name in ("drop", "stall", "slow", "garbage", "close") if found[name])
    amount, how = 0, found["rst"] or found["kind"] or ""
    if what == "slow":
        amount, how = int(found["rate"]), found["unit"]
        if not amount:
            raise FaultError(f"{words!r:.200}: slow must be at least 1 {how}")
    elif what == "close":
        amount, how = int(found["code"]), found["reason"] or ""
        if amount not in _CLOSE_CODES:
            raise FaultError(f"{words!r:.200}: {amount} may not stand in a close frame")
    after = int(moment["after"] or 0) if moment else 0
    return Fault(words, what, how, amount, after, (moment["before"] or "") if moment else "")


def session_fault(words: str) -> Fault:
    """As parse, but refuses faults of the door."""
    fault = parse(words)
    if isinstance(fault, Refusal):
        raise FaultError(f"{words!r:.200} concerns handshakes, not a session")
    return fault


class Faults:
    """The faults of one session, from their order to their moment. Events are counted in either direction,
    so `after n events` for n = 0, 1, 2 … meets every boundary of a conversation once."""

    def __init__(self, line: Line, ordered: Iterable[Fault], tell: Callable[[str], None]) -> None:
        """`tell` is told the words of each fault that is done."""
        self._line = line
        self._tell = tell
        self._waiting = [(fault, fault.after) for fault in ordered]
        self._delay_seconds = 0.0
        self.passed = 0

    async def order(self, fault: Fault) -> None:
        """Do it when its moment has come: now, if it names none."""
        self._waiting.append((fault, self.passed + fault.after))
        await self._due()

    def clear(self) -> None:
        """Forget what has not happened yet."""
        self._waiting.clear()

    async def before(self, kind: str, *, ours: bool) -> None:
        """An event of this type is about to pass; `ours`: to be sent."""
        await self._due()
        for waiting in [each for each in self._waiting if each[0].before == kind]:
            self._waiting.remove(waiting)
            await self._do(waiting[0])
        if ours and self._delay_seconds:
            await trio.sleep(self._delay_seconds)

    async def after(self) -> None:
        """An event has passed."""
        self.passed += 1
        await self._due()

    async def _due(self) -> None:
        for waiting in [each for each in self._waiting if not each[0].before and each[1] <= self.passed]:
            if waiting in self._waiting:  # another event may have passed meanwhile
                self._waiting.remove(waiting)
                await self._do(waiting[0])

    async def _do(self, fault: Fault) -> None:
        self._tell(fault.words)
        match fault.what:
            case "drop":
                await self._line.drop(reset=fault.how == "rst")
            case "stall":
                self._line.stall()
            case "close":
                await self._line.close(fault.amount, fault.how)
            case "slow" if fault.how == "ms":
                self._delay_seconds = fault.amount / 1000
            case "slow":
                self._line.slow(fault.amount)
            case "garbage" if fault.how in _TEXTS:
                await self._line.send(_TEXTS[fault.how])
            case "garbage":
                await self._line.send_frame(_FRAMES[fault.how])
