"""From what an event says was used to what it costs, exactly."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from rtpipe import Json
from rtpipe.protocol.usage import Usage, read_usage
from rtpipe_cost_governor.prices import MODALITIES, Price


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What one use came to, in micro-dollars; *parts* add up to *micro_usd*.

    *doubt* says why this is an estimate; it is empty where it is none.
    """

    usage: Usage
    micro_usd: int
    parts: dict[str, int]
    doubt: str = ""

    @property
    def image_micro_usd(self) -> int:
        return sum(self.parts.get(name, 0) for name in ("image_in", "image_cached"))


def quantities(usage: Usage) -> dict[str, Fraction]:
    """How much there is of each part. Cached tokens are a part of the input and have a price of their own;
    reasoning is in the text that was written, once."""
    amounts: dict[str, Fraction] = {}
    for modality in MODALITIES:
        cached = getattr(usage, f"cached_{modality}")
        amounts[f"{modality}_in"] = Fraction(getattr(usage, f"input_{modality}") - cached)
        amounts[f"{modality}_cached"] = Fraction(cached)
    amounts["text_out"] = Fraction(usage.output_text)
    amounts["audio_out"] = Fraction(usage.output_audio)
    # As it was written in the event: a binary float is another number.
    amounts["second"] = Fraction(Decimal(repr(usage.seconds)))
    return amounts


def price_usage(usage: Usage, price: Price, fallback: Price) -> tuple[dict[str, int], list[str]]:
    """The cost of each part, whole micro-dollars that add up to the exact sum, rounded up once; and the
    parts that *price* does not have, for which *fallback* was taken."""
    parts: dict[str, int] = {}
    missing = []
    exact = Fraction(0)
    for name, amount in quantities(usage).items():
        if not amount:
            continue
        rate = price.rates.rate(name)
        if rate is None:
            missing.append(name)
            rate = fallback.rates.rate(name) or Fraction(0)
        before, exact = exact, exact + amount * rate
        parts[name] = math.ceil(exact) - math.ceil(before)
    return parts, missing


def bill_for(event: Json, price: Price, fallback: Price) -> Bill | None:
    """The bill of a ``response.done`` or of a completed transcription; None where it says nothing of use."""
    usage = read_usage(event)
    if usage is None:
        return None
    doubts = [] if price.known else [f"no price for {price.model}"]
    if (oddity := inconsistency(event)) is not None:
        doubts.append(oddity)
    parts, missing = price_usage(usage, price, fallback)
    if missing:
        doubts.append(f"no price for {', '.join(missing)} of {price.model}")
    return Bill(usage=usage, micro_usd=sum(parts.values()), parts=parts, doubt="; ".join(doubts))


def inconsistency(event: Json) -> str | None:
    """What in an event's usage contradicts itself, None if nothing does."""
    holder = event.get("response") if isinstance(event.get("response"), dict) else event
    usage = holder.get("usage") if isinstance(holder, dict) else None
    if not isinstance(usage, dict) or usage.get("type") == "duration":
        return None
    total_in, total_out = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if "total_tokens" in usage and _count(usage, "total_tokens") != total_in + total_out:
        return "total_tokens is not the sum of input and output"
    inputs, outputs = usage.get("input_token_details"), usage.get("output_token_details")
    if isinstance(inputs, dict):
        if _sum(inputs) != total_in:
            return "input_token_details do not add up to input_tokens"
        cached = inputs.get("cached_tokens_details")
        if _count(inputs, "cached_tokens") > total_in:
            return "more is cached than was read"
        if isinstance(cached, dict):
            if _sum(cached) != _count(inputs, "cached_tokens"):
                return "cached_tokens_details do not add up to cached_tokens"
            if any(_count(cached, f"{m}_tokens") > _count(inputs, f"{m}_tokens") for m in MODALITIES):
                return "more of one modality is cached than was read"
    elif total_in:
        return "no input_token_details"
    if isinstance(outputs, dict):
        return None if _sum(outputs) == total_out else "output_token_details do not add up to output_tokens"
    # Transcriptions write text, and do not say so.
    return "no output_token_details" if total_out and holder is not event else None


def _sum(details: dict[str, Any]) -> int:
    return sum(_count(details, f"{modality}_tokens") for modality in MODALITIES)


def _count(holder: dict[str, Any], name: str) -> int:
    value = holder.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
