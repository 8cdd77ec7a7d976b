"""What the books say: the routes behind ``rtpipe costs`` and ``rtpipe limits``."""

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rtpipe import ConnectRequest, Refused, Response, Route
from rtpipe_cost_governor import room
from rtpipe_cost_governor.books import Books, Entry
from rtpipe_cost_governor.config import Caps
from rtpipe_cost_governor.prices import MODALITIES
from rtpipe_cost_governor.state import keep

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

WAYS: Final = ("principal", "model", "modality", "session", "cycle")
LIVE: Final = ("budget_usd", "budget_tokens", "day_budget_usd", "month_budget_usd")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


class Row(msgspec.Struct, kw_only=True):
    """A sum of entries. *cached_share* is the part of the input tokens that came from the cache."""

    name: str
    uses: int = 0
    micro_usd: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, entry: Entry, modalities: tuple[str, ...] = MODALITIES) -> None:
        """Count an entry, or what of it belongs to some modalities."""
        usage = entry.usage
        self.uses += 1
        self.micro_usd += sum(
            micro_usd for part, micro_usd in entry.parts.items() if modality_of(part) in modalities
        )
        self.input_tokens += int(sum(usage.get(f"input_{each}", 0) for each in modalities))
        self.cached_tokens += int(sum(usage.get(f"cached_{each}", 0) for each in modalities))
        self.output_tokens += int(sum(usage.get(f"output_{each}", 0) for each in modalities))

    def told(self) -> dict[str, Any]:
        share = self.cached_tokens / self.input_tokens if self.input_tokens else 0.0
        return {**msgspec.structs.asdict(self), "usd": usd(self.micro_usd), "cached_share": round(share, 3)}


def modality_of(part: str) -> str:
    """Text, audio or image; seconds are of audio."""
    return "audio" if part == "second" else part.partition("_")[0]


def usd(micro_usd: int) -> str:
    """As text, exactly."""
    return f"{micro_usd // 1_000_000}.{micro_usd % 1_000_000:06d}"


def routes(governor: "CostGovernor") -> list[Route]:
    """For those who look after the gateway."""

    async def costs(request: ConnectRequest, _: bytes) -> Response:
        day = _one(request, "day") or governor.periods.day(governor.books.now())
        by = _one(request, "by") or "principal"
        if not _DAY.fullmatch(day) or by not in WAYS:
            raise Refused(422, "bad_query", f"day is YYYY-MM-DD, by is one of {', '.join(WAYS)}.")
        return Response(200, await summary(governor.books, day, by))

    async def limits(request: ConnectRequest, _: bytes) -> Response:
        return Response(200, await _change(governor, request))

    return [
        Route("GET", "/costs", costs, access="admin"),
        Route("POST", "/limits", limits, access="admin"),
    ]


async def summary(books: Books, day: str, by: str) -> dict[str, Any]:
    """The sums of one day, and what is reserved and not settled."""
    rows: dict[str, Row] = {}
    total = Row(name="total")
    async for _, entry in books.entries(f"{day}:"):
        total.add(entry)
        if by == "modality":
            for name in sorted({modality_of(part) for part in entry.parts}):
                rows.setdefault(name, Row(name=name)).add(entry, (name,))
            continue
        name = {"cycle": entry.cycle or "(none)"}.get(by) or str(getattr(entry, by))
        rows.setdefault(name, Row(name=name)).add(entry)
    count, open_micro_usd = await books.unsettled(day)
    return {
        "day": day,
        "by": by,
        "rows": [row.told() for row in sorted(rows.values(), key=lambda row: (-row.micro_usd, row.name))],
        "total": total.told(),
        "unsettled": {"reservations": count, "micro_usd": open_micro_usd, "usd": usd(open_micro_usd)},
    }


async def _change(governor: "CostGovernor", request: ConnectRequest) -> dict[str, Any]:
    name = _one(request, "session")
    found = next((each for each in governor.live if each.id == name), None)
    if found is None:
        raise Refused(404, "no_such_session", "There is no session of this id in service.")
    asked = {key: value for key in LIVE if (value := _one(request, key)) is not None}
    own = {**found.state.own_caps, **asked}
    try:
        caps = room.caps_of(governor, found, own) if asked else found.state.caps
    except ValueError as exc:
        raise Refused(422, "bad_limit", str(exc)) from None
    if asked:
        found.state.own_caps = own
        keep(found)
        found.start_soon(room.renew, governor, found)
    return {"session": found.id, "principal": found.principal.id, "caps": _told(caps)} | {
        "spent_usd": usd(governor.books.spent(found.state.money[0])),
    }


def _told(caps: Caps) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(caps).items() if value is not None}


def _one(request: ConnectRequest, name: str) -> str | None:
    values = request.query.get(name, ())
    if len(values) > 1:
        raise Refused(422, "bad_query", f"{name} came {len(values)} times.")
    return values[0] if values else None
