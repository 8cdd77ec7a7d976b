"""The books: counters that reservations stand on, and an entry for every use, all in the store."""

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from rtpipe import OverLimit, Store
from rtpipe_cost_governor.bill import Bill

DAY_S: Final = 86_400.0
_SESSION_KEPT_S: Final = 7 * DAY_S
_LEAP_S: Final = 7 * DAY_S
"""A clock that was so far ahead, and is set right, finds every budget as it was."""
FORGOTTEN: Final = "(forgotten)"

Unit = Literal["usd", "tokens"]


class Cap(msgspec.Struct, frozen=True):
    """One counter and what it may come to: micro-dollars or tokens; None: counted, not limited. *kept* is the
    part of the limit that is there for a goodbye alone."""

    key: str
    limit: int | None
    expires_at: float
    what: str
    kept: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One use of the model, as it is kept. *cycle* is the first response of a chain of tool calls."""

    at: float
    principal: str
    session: str
    model: str
    kind: Literal["response", "transcription"]
    micro_usd: int
    parts: dict[str, int]
    usage: dict[str, float]
    status: str = ""
    cycle: str = ""
    doubt: str = ""


class Reserved(msgspec.Struct, kw_only=True, eq=False):
    """What is set aside for one response. *output_tokens* is what it may say for it.

    For one that was asked for: the create's *event_id*, the *metadata* its answer is known by, whether the
    answer is *is_apart*, out of band, and whether it reads all of the conversation.
    """

    id: str
    micro_usd: int
    tokens: int
    output_tokens: int
    caps: tuple[Cap, ...]
    token_caps: tuple[Cap, ...]
    event_id: str = ""
    metadata: dict[str, Any] = {}
    is_apart: bool = False
    reads_all: bool = True
    durable: bool = False


class Periods:
    """Days and months in the operator's zone."""

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)

    def day(self, at: float) -> str:
        return datetime.fromtimestamp(at, self._zone).strftime("%Y-%m-%d")

    def ends(self, at: float) -> tuple[float, float]:
        """When the day and the month of *at* are over."""
        here = datetime.fromtimestamp(at, self._zone).replace(
            hour=0, minute=0, second=0, microsecond=0, fold=0
        )
        next_month = (here.replace(day=1) + timedelta(days=32)).replace(day=1)
        return (here + timedelta(days=1)).timestamp(), next_month.timestamp()


def counter_keys(
    unit: Unit,
    periods: Periods,
    session: str,
    principal: str,
    limits: Mapping[str, int | None],
    at: float,
    goodbye: int = 0,
) -> tuple[Cap, ...]:
    """The counters that one use counts on. *limits* by session, day, month, all_day, all_month. *goodbye* is
    kept back of each, but no more than a tenth."""
    day = periods.day(at)
    day_ends, month_ends = periods.ends(at)
    who = hashlib.sha256(principal.encode()).hexdigest()[:20]  # names may be long, and are to be forgotten
    month = day[:7]
    made = (
        ("session", f"{unit}:session:{session}", at + _SESSION_KEPT_S, "conversation"),
        ("day", f"{unit}:{day}:{who}", day_ends, f"day {day}"),
        ("month", f"{unit}:{month}:{who}", month_ends, f"month {month}"),
        ("all_day", f"{unit}:{day}", day_ends, f"day {day} of everybody"),
        ("all_month", f"{unit}:{month}", month_ends, f"month {month} of everybody"),
    )
    return tuple(
        Cap(key, limit := limits.get(name), ends, what, min(goodbye, (limit or 0) // 10))
        for name, key, ends, what in made
    )


class Books:
    """Reservations, settlements and entries of all sessions of this process."""

    def __init__(self, store: Store, periods: Periods, retention_days: int) -> None:
        self._store = store
        self.change(periods, retention_days)
        self._known: dict[str, int] = {}
        """Counters as this process last saw them, its own changes since included."""
        self._open: Counter[str] = Counter()
        """What of them is reserved by this process."""

    def change(self, periods: Periods, retention_days: int) -> None:
        """From now on, in which days and for how long."""
        self.periods = periods
        self._kept_s = retention_days * DAY_S

    def now(self) -> float:
        """The wall clock, seconds."""
        return time.time()

    async def look(self, caps: Iterable[Cap]) -> bool:
        """Learn what stands on these counters. Returns whether one of them was not known."""
        unknown = [cap.key for cap in caps if cap.limit is not None and cap.key not in self._known]
        for key in unknown:
            total = await self._store.counter(key)
            # Whoever was quicker may have reserved since.
            self._known.setdefault(key, total)
        return bool(unknown)

    def room(self, caps: Iterable[Cap]) -> int | None:
        """What may still be reserved under every cap; None: no limit."""
        rooms = [cap.limit - cap.kept - self._known.get(cap.key, 0) for cap in caps if cap.limit is not None]
        return min(rooms) if rooms else None

    def total(self, cap: Cap) -> int:
        """What stands on a counter, reservations included."""
        return self._known.get(cap.key, 0)

    def spent(self, cap: Cap) -> int:
        """What stands on a counter without what this process has only reserved."""
        return self._known.get(cap.key, 0) - self._open[cap.key]

    def forget_counters(self, keys: Iterable[str]) -> None:
        """Nobody here asks for these any more; what stands in the store stays."""
        for key in keys:
            if not self._open[key]:
                self._known.pop(key, None)
                self._open.pop(key, None)

    async def reserve(self, reserved: Reserved, *, goodbye: bool = False, limited: bool = True) -> None:
        """Set it aside, durably. Raises ``OverLimit``; then nothing is. A *goodbye* may have what is kept for
        it; without *limited* it is counted whatever the caps say: it is being spent already."""

        def limits(caps: tuple[Cap, ...]) -> dict[str, int | None]:
            if not limited:
                return {cap.key: None for cap in caps}
            return {
                cap.key: None if cap.limit is None else cap.limit - (0 if goodbye else cap.kept)
                for cap in caps
            }

        token_caps = _set(reserved.token_caps)
        await self._reserve(reserved.id, reserved.caps, limits(reserved.caps), reserved.micro_usd)
        try:
            await self._reserve(f"{reserved.id}~t", token_caps, limits(token_caps), reserved.tokens)
        except OverLimit:
            await self._settle(reserved.id, reserved.caps, reserved.micro_usd, 0)
            raise
        reserved.durable = True

    async def _reserve(
        self, id: str, caps: tuple[Cap, ...], limits: Mapping[str, int | None], amount: int
    ) -> None:
        if not caps:
            return
        ends = {cap.key: cap.expires_at + _LEAP_S for cap in caps}
        try:
            totals = await self._store.reserve(limits, amount, id=id, expires_at=ends)
        except OverLimit as over:
            self._known[over.key] = over.total
            raise
        for key, total in totals.items():
            self._known[key] = total
            self._open[key] += amount

    async def settle(self, reserved: Reserved, micro_usd: int, tokens: int) -> None:
        """Replace what was set aside by what it came to."""
        await self._settle(reserved.id, reserved.caps, reserved.micro_usd, micro_usd)
        await self._settle(f"{reserved.id}~t", _set(reserved.token_caps), reserved.tokens, tokens)

    def give_up(self, reserved: Reserved) -> None:
        """Nobody will say what it came to: from now on all of it counts as spent."""
        for caps, amount in (
            (reserved.caps, reserved.micro_usd),
            (_set(reserved.token_caps), reserved.tokens),
        ):
            for cap in caps:
                self._open[cap.key] -= amount

    async def _settle(self, id: str, caps: tuple[Cap, ...], before: int, after: int) -> None:
        if not caps:
            return
        await self._store.settle(id, after)
        for cap in caps:
            self._open[cap.key] -= before
            if cap.key in self._known:
                self._known[cap.key] += after - before

    async def write(self, id: str, entry: Entry) -> None:
        """Keep an entry. Writing it again changes nothing."""
        key = f"entry:{self.periods.day(entry.at)}:{id}"
        await self._store.put(key, msgspec.json.encode(entry), self._kept_s)

    async def entries(self, prefix: str) -> AsyncIterator[tuple[str, Entry]]:
        """Entries with their keys; *prefix* is a day, or the beginning of one."""
        prefix, after = f"entry:{prefix}", ""
        while found := await self._store.scan(prefix, after=after):
            for key, value in found.items():
                yield key, msgspec.json.decode(value, type=Entry)
            after = key

    async def unsettled(self, day: str) -> tuple[int, int]:
        """How many reservations of that day nobody has settled, and their sum in micro-dollars."""
        found = [
            each
            for each in await self._store.unsettled()
            if not each.id.endswith("~t")
            and self.periods.day(each.made_at) == day
            and await self._store.get(f"entry:{day}:{each.id}") is None
        ]
        return len(found), sum(each.amount for each in found)

    async def forget(self, principal: str) -> int:
        """Take a caller's name, and what leads to its sessions, out of every entry; returns how many."""
        count = 0
        async for key, entry in self.entries(""):
            if entry.principal == principal:
                nameless = msgspec.structs.replace(
                    entry, principal=FORGOTTEN, session=FORGOTTEN, cycle="", doubt=""
                )
                # Under another key: the old one has the session's name in it.
                day = key.split(":")[1]
                new = f"entry:{day}:{hashlib.sha256(key.encode()).hexdigest()[:32]}"
                left_s = max(1.0, entry.at + self._kept_s - self.now())
                await self._store.put(new, msgspec.json.encode(nameless), left_s)
                await self._store.delete(key)
                count += 1
        return count


def entry_for(
    bill: Bill,
    *,
    at: float,
    principal: str,
    session: str,
    model: str,
    kind: Literal["response", "transcription"],
    status: str,
    cycle: str,
) -> Entry:
    """What is kept of a bill."""
    return Entry(
        at=at,
        principal=principal,
        session=session,
        model=model,
        kind=kind,
        micro_usd=bill.micro_usd,
        parts=bill.parts,
        usage={name: count for name, count in msgspec.structs.asdict(bill.usage).items() if count},
        status=status,
        cycle=cycle,
        doubt=bill.doubt,
    )


def _set(caps: tuple[Cap, ...]) -> tuple[Cap, ...]:
    """Tokens are counted only where somebody limits them: the ledger knows them anyway."""
    return caps if any(cap.limit is not None for cap in caps) else ()
