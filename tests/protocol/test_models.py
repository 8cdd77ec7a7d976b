"""When models end: what is said of them, and that the table agrees with itself."""

from datetime import date

import pytest

from rtpipe.protocol.models import MODELS, WARN_DAYS, end_of_life, ends

TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    ("name", "service", "day"),
    [
        ("gpt-realtime", "openai", "2027-01-20"),
        ("gpt-realtime", "azure", "2027-03-02"),
        ("gpt-realtime-mini-2025-10-06", "openai", "2027-01-20"),  # as its family
        ("gpt-realtime-mini-2025-10-06", "azure", "2027-04-06"),  # a day of its own
        ("gpt-realtime-2.1", "openai", None),
        ("gpt-realtime", "sim", None),
        ("my-deployment", "azure", None),
    ],
)
def test_the_day(name, service, day):
    assert ends(name, service) == (day and date.fromisoformat(day))


@pytest.mark.parametrize(
    ("name", "service", "said"),
    [
        (
            "gpt-realtime",
            "openai",
            "model gpt-realtime ends on 2027-01-20, 59 days left; use gpt-realtime-2.1 instead",
        ),
        ("gpt-realtime-whisper", "azure", "model gpt-realtime-whisper ends on 2027-05-06, 165 days left"),
        (
            "gpt-4o-realtime-preview-2024-10-01",
            "azure",
            "model gpt-4o-realtime-preview-2024-10-01 ended on 2025-03-26; use gpt-realtime-2.1 instead",
        ),
        ("gpt-realtime-2.1", "azure", None),  # too far away
        ("my-deployment", "azure", None),
    ],
)
def test_what_is_said(name, service, said):
    assert end_of_life(name, service, TODAY) == said


def test_the_edges_of_the_warning():
    day = ends("gpt-realtime", "openai")
    assert end_of_life("gpt-realtime", "openai", date.fromordinal(day.toordinal() - WARN_DAYS - 1)) is None
    assert "180 days left" in end_of_life(
        "gpt-realtime", "openai", date.fromordinal(day.toordinal() - WARN_DAYS)
    )


def test_every_replacement_is_a_model_that_outlives_what_it_replaces():
    for model in MODELS.values():
        if not model.replacement:
            continue
        assert not MODELS[model.replacement].replacement
        for service, day in model.ends.items():
            later = ends(model.replacement, service)
            assert later is None or later > day, model.name
