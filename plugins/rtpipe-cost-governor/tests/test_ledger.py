"""The ledger is right: whatever is used, the total is what an independent computation says."""

import math
import tomllib
from decimal import Decimal
from importlib import resources
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpipe_cost_governor.bill import Bill, bill_for, inconsistency
from rtpipe_cost_governor.prices import Table, is_exact, shipped

RAW = tomllib.loads(resources.files("rtpipe_cost_governor").joinpath("prices.toml").read_text("utf-8"))
REALTIME = sorted(name for name, rates in RAW.items() if rates["kind"] == "realtime" and "image_in" in rates)
TABLE = Table({}, {})
FALLBACK = TABLE.price("", "")
counts = st.integers(0, 10**7)


@st.composite
def usages(draw: Any) -> dict[str, Any]:
    """Usage as upstreams write it, with parts of the input cached."""
    read = {name: draw(counts) for name in ("text", "audio", "image")}
    cached = {name: draw(st.integers(0, count)) for name, count in read.items()}
    out = {name: draw(counts) for name in ("text", "audio")}
    used: dict[str, Any] = {
        "total_tokens": sum(read.values()) + sum(out.values()),
        "input_tokens": sum(read.values()),
        "output_tokens": sum(out.values()),
        "input_token_details": {f"{name}_tokens": count for name, count in read.items()},
        "output_token_details": {f"{name}_tokens": count for name, count in out.items()},
    }
    used["input_token_details"]["cached_tokens"] = sum(cached.values())
    used["input_token_details"]["cached_tokens_details"] = {f"{n}_tokens": c for n, c in cached.items()}
    if out["text"] and draw(st.booleans()):
        # Part of the text that was written, and said again.
        used["output_token_details"]["reasoning_tokens"] = draw(st.integers(0, out["text"]))
    return used


def recomputed(model: str, used: dict[str, Any]) -> int:
    """The same by other means: decimals, straight from the file and the event."""
    rates, read, out = RAW[model], used["input_token_details"], used["output_token_details"]
    total = Decimal(0)
    for name in ("text", "audio", "image"):
        cached = read["cached_tokens_details"][f"{name}_tokens"]
        total += (read[f"{name}_tokens"] - cached) * Decimal(rates[f"{name}_in"])
        total += cached * Decimal(rates.get(f"{name}_cached", rates[f"{name}_in"]))
    for name in ("text", "audio"):
        total += out[f"{name}_tokens"] * Decimal(rates[f"{name}_out"])
    return math.ceil(total)


def bill(model: str, used: Any, upstream: str = "openai") -> Bill:
    event = {"type": "response.done", "response": {"id": "r", "status": "completed", "usage": used}}
    made = bill_for(event, TABLE.price(model, upstream), FALLBACK)
    assert made is not None
    return made


@given(st.sampled_from(REALTIME), st.lists(usages(), min_size=1, max_size=20))
def test_the_total_is_that_of_an_independent_computation(model: str, mix: list[dict[str, Any]]) -> None:
    bills = [bill(model, used) for used in mix]
    assert sum(each.micro_usd for each in bills) == sum(recomputed(model, used) for used in mix)
    assert all(sum(each.parts.values()) == each.micro_usd for each in bills)
    assert all(part >= 0 for each in bills for part in each.parts.values())
    assert [each.doubt for each in bills] == [""] * len(bills)


@given(usages())
def test_a_bill_is_never_less_where_usage_tells_less(used: dict[str, Any]) -> None:
    whole = bill("gpt-realtime-2.1", used).micro_usd
    del used["input_token_details"]["cached_tokens_details"]
    assert bill("gpt-realtime-2.1", used).micro_usd >= whole
    del used["input_token_details"]
    assert bill("gpt-realtime-2.1", used).micro_usd >= whole


def test_the_example_of_the_reference() -> None:
    used = {
        "total_tokens": 253,
        "input_tokens": 132,
        "output_tokens": 121,
        "input_token_details": {
            "text_tokens": 119,
            "audio_tokens": 13,
            "image_tokens": 0,
            "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
    }
    # 55 * 4 + 64 * 0.4 + 13 * 32 + 30 * 24 + 91 * 64 = 7205.6
    assert bill("gpt-realtime-2.1", used).micro_usd == 7206


@pytest.mark.parametrize(
    ("model", "upstream", "found", "exact"),
    [
        ("gpt-realtime-2.1", "openai", "gpt-realtime-2.1", True),
        ("gpt-realtime-2.1", "azure", "azure/gpt-realtime-2.1", True),
        ("gpt-realtime-2.1-2026-08-01", "openai", "gpt-realtime-2.1", False),
        ("gpt-realtime-1.5-2026-02-23", "azure", "azure/gpt-realtime-1.5-2026-02-23", True),
        ("gpt-realtime-mini-latest", "sim", "gpt-realtime-mini", False),
        ("gpt-realtime-9", "openai", "", False),
    ],
)
def test_how_a_model_finds_its_price(model: str, upstream: str, found: str, exact: bool) -> None:
    price = TABLE.price(model, upstream)
    assert price.found == found
    assert price.known == bool(found)
    assert not found or is_exact(price) == exact


def test_every_price_that_comes_along_is_dated_and_can_be_computed_with() -> None:
    for name, rates in shipped().items():
        assert rates.date == "2026-11-22"
        assert rates.rate("second") or rates.rate("audio_in"), name


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"total_tokens": 6}, "total_tokens"),
        ({"input_token_details": None}, "no input_token_details"),
        ({"output_token_details": {"text_tokens": 9}}, "output_token_details do not add up"),
        ({"input_token_details": {"text_tokens": 9}}, "input_token_details do not add up"),
        ({"input_token_details": {"text_tokens": 3, "cached_tokens": 4}}, "more is cached"),
    ],
)
def test_usage_that_contradicts_itself_is_doubted(
    kit: ModuleType, change: dict[str, Any], doubt: str
) -> None:
    used = {**kit.usage(3, out=(2, 0)), **change}
    made = bill("gpt-realtime-2.1", used)
    assert doubt in made.doubt
    assert inconsistency({"response": {"usage": kit.usage(3, out=(2, 0))}}) is None


def test_what_a_model_has_no_price_for_is_as_dear_as_anything(kit: ModuleType) -> None:
    made = bill("gpt-4o-realtime-preview-2024-12-17", kit.usage(image=1), upstream="azure")
    assert (made.micro_usd, made.doubt) == (
        5,
        "no price for image_in of gpt-4o-realtime-preview-2024-12-17",
    )


def test_the_highest_prices_are_looked_for_once() -> None:
    assert TABLE.price("nobody-knows", "openai").rates is FALLBACK.rates
