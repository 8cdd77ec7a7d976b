"""What the operator writes. Money is USD, a decimal as text, so that it stays what it is."""

import re
import zoneinfo
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rtpipe_cost_governor.prices import Rates

_USD = re.compile(r"\d{1,9}(\.\d{1,6})?")
_Money = Annotated[str, Meta(pattern=rf"^{_USD.pattern}$")]
_Count = Annotated[int, Meta(ge=1, le=10**12)]


def micro(usd: str) -> int:
    """Micro-dollars of an amount in USD. Raises ``ValueError``."""
    if not _USD.fullmatch(usd):
        raise ValueError(f'{usd!r} is no amount of money: write USD as a decimal like "5" or "0.25"')
    return int(Fraction(usd) * 1_000_000)


class Caps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one caller may use. Unset: no limit. A principal's ``limits`` have these names and come first."""

    budget_usd: Annotated[_Money | None, Meta(description="Money for one conversation.")] = "5"
    day_budget_usd: Annotated[_Money | None, Meta(description="Money of one caller on one day.")] = None
    month_budget_usd: Annotated[_Money | None, Meta(description="Money of one caller in one month.")] = None
    budget_tokens: Annotated[_Count | None, Meta(description="Tokens for one conversation.")] = None
    day_budget_tokens: Annotated[_Count | None, Meta(description="Tokens of one caller on one day.")] = None
    month_budget_tokens: Annotated[_Count | None, Meta(description="Tokens of one caller in one month.")] = (
        None
    )
    max_responses: Annotated[_Count | None, Meta(description="Answers in one conversation.")] = None
    max_images: Annotated[_Count | None, Meta(description="Images in one conversation.")] = None
    max_minutes: Annotated[
        Annotated[float, Meta(gt=0, le=1_000_000)] | None, Meta(description="How long a conversation lasts.")
    ] = None
    max_sessions: Annotated[_Count | None, Meta(description="Sessions of one caller at a time.")] = None
    max_events_per_s: Annotated[
        _Count | None, Meta(description="Events a session may send, on average over ten seconds.")
    ] = None
    max_bytes_per_s: Annotated[
        _Count | None, Meta(description="Bytes a session may send, on average over ten seconds.")
    ] = None
    max_output_tokens: Annotated[
        int, Meta(ge=16, le=1_000_000, description="What one answer may be long; more is cut down to it.")
    ] = 4096

    def __post_init__(self) -> None:
        for name in ("budget_usd", "day_budget_usd", "month_budget_usd"):
            if (value := getattr(self, name)) is not None and not micro(value):
                raise ValueError(f"{name} of nothing lets nobody in: leave the caller out instead")

    def of(self, limits: Mapping[str, str | int | float]) -> "Caps":
        """These, with what a principal has of its own. Raises ``ValueError`` naming what is wrong."""
        if not limits:
            return self
        texts: dict[str, Any] = {
            name: str(value) if name.endswith("_usd") else value for name, value in limits.items()
        }
        try:
            return msgspec.convert({**msgspec.structs.asdict(self), **texts}, Caps, strict=False)
        except msgspec.ValidationError as exc:
            raise ValueError(str(exc)) from None


class Everybody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all callers together may use. Unset: no limit."""

    day_usd: Annotated[_Money | None, Meta(description="Money on one day.")] = None
    month_usd: Annotated[_Money | None, Meta(description="Money in one month.")] = None
    day_tokens: Annotated[_Count | None, Meta(description="Tokens on one day.")] = None
    month_tokens: Annotated[_Count | None, Meta(description="Tokens in one month.")] = None

    def __post_init__(self) -> None:
        for amount in (self.day_usd, self.month_usd):
            if amount is not None:
                micro(amount)


class Alerting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When somebody should look."""

    budget_fraction: Annotated[float, Meta(gt=0, le=1, description="Of a budget that is used up.")] = 0.5
    spike_factor: Annotated[
        float, Meta(gt=1, le=1000, description="Times the usual hour's money, without more sessions.")
    ] = 3.0
    images_usd: Annotated[_Money, Meta(description="Money for the images of one session.")] = "0.5"
    tool_s: Annotated[float, Meta(gt=0, le=3600, description="Seconds that a tool call took.")] = 5.0
    error_rate: Annotated[
        float, Meta(gt=0, le=1, description="Of the last hundred answers, at least twenty, that failed.")
    ] = 0.1

    def __post_init__(self) -> None:
        micro(self.images_usd)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.cost-governor]``."""

    caps: Annotated[Caps, Meta(description="What one caller may use.")] = Caps()
    everybody: Annotated[Everybody, Meta(description="What all callers together may use.")] = Everybody()
    alerts: Annotated[Alerting, Meta(description="When somebody should look.")] = Alerting()
    kill_switch: Annotated[
        bool,
        Meta(
            description="Stop all spending: conversations end at once, those that begin are refused with "
            "a 503."
        ),
    ] = False
    zone: Annotated[str, Meta(description="The time zone in which days and months begin.")] = "UTC"
    unpriced: Annotated[
        Literal["refuse", "estimate", "allow"],
        Meta(
            description="A model without a price, or usage that contradicts itself: refuse it, count it at "
            "the highest price there is, or count what is known and no more."
        ),
    ] = "estimate"
    aliases: Annotated[
        dict[str, str],
        Meta(description="Whose price a model has that the table does not know: a deployment."),
    ] = {}
    prices: Annotated[
        dict[str, Rates], Meta(description="Prices besides, or instead of, those that come along.")
    ] = {}
    wrap_up_fraction: Annotated[
        float, Meta(gt=0, le=1, description="Of a budget: from here on the model is told to come to an end.")
    ] = 0.8
    wrap_up_text: Annotated[str, Meta(min_length=1, description="How it is told, as a system message.")] = (
        "The budget of this conversation is nearly used up. Come to an end in your next answer."
    )
    goodbye_usd: Annotated[
        _Money, Meta(description='Kept back of every budget, to pay for a goodbye; "0": none is spoken.')
    ] = "0.05"
    goodbye_text: Annotated[str, Meta(min_length=1, description="What the model is asked to say then.")] = (
        "Tell the caller in one short sentence that the conversation has to end here, and say goodbye."
    )
    context_tokens: Annotated[
        int,
        Meta(ge=1000, le=1_000_000, description="More of a conversation is not read again for each answer."),
    ] = 24_000
    uncached_context_tokens: Annotated[
        int,
        Meta(
            ge=1000,
            le=1_000_000,
            description="The same while the cache does not help, because something changes the beginning.",
        ),
    ] = 4_000
    retention_ratio: Annotated[
        float,
        Meta(gt=0, le=1, description="What is left of it when it is cut, so that it is not cut each time."),
    ] = 0.8
    retention_days: Annotated[
        int, Meta(ge=1, le=3650, description="How long the ledger's entries are kept.")
    ] = 90

    def __post_init__(self) -> None:
        micro(self.goodbye_usd)
        try:
            zoneinfo.ZoneInfo(self.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f'zone {self.zone!r} is unknown: write one like "Europe/Berlin"') from None
