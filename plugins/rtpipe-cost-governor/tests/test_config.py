"""What an operator writes, and what the distribution brings."""

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtpipe_cost_governor import Config, CostGovernor

HERE = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ({"caps": {"budget_usd": "five"}}, "budget_usd"),
        ({"caps": {"budget_usd": 5}}, "budget_usd"),
        ({"caps": {"budget_usd": "0"}}, "nothing lets nobody in"),
        ({"caps": {"day_budget_usd": "-1"}}, "day_budget_usd"),
        ({"caps": {"max_images": 0}}, "max_images"),
        ({"everybody": {"day_usd": "1,5"}}, "day_usd"),
        ({"zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"unpriced": "guess"}, "unpriced"),
        ({"prices": {"m": {"date": "today"}}}, "no date"),
        ({"prices": {"m": {"date": "2026-01-01", "text_in": "0.1.2"}}}, "text_in"),
        ({"alerts": {"spike_factor": 1}}, "spike_factor"),
        ({"budget_usd": "5"}, "budget_usd"),
    ],
)
def test_a_mistake_is_refused_with_its_place(written: Any, where: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=where):
        msgspec.convert(written, Config)


def test_the_sample_shows_every_default() -> None:
    text = (HERE / "sample.toml").read_text()
    tables = tomllib.loads(text)["plugins"]["cost-governor"]
    assert msgspec.convert(tables, Config) == Config()
    everything = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line
        for line in text.splitlines()
    )
    shown = msgspec.convert(tomllib.loads(everything)["plugins"]["cost-governor"], Config)
    for field in msgspec.structs.fields(Config):
        if field.name not in ("caps", "everybody", "aliases", "prices"):
            assert getattr(shown, field.name) == getattr(Config(), field.name), field.name
    for field in msgspec.structs.fields(type(shown.caps)):
        assert getattr(shown.caps, field.name) is not None, field.name


def test_the_distribution_offers_the_plugin_and_its_sample() -> None:
    (entry,) = metadata.entry_points(group="rtpipe.plugins", name="cost-governor")
    assert entry.load() is CostGovernor
    assert entry.dist is not None
    assert entry.dist.name == "rtpipe-cost-governor"
    assert [f for f in entry.dist.files or () if f.as_posix() == "rtpipe_cost_governor/sample.toml"]
