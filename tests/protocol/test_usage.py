from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe.protocol.usage import Usage, read_usage


def done(usage: Any, **response: Any) -> dict[str, Any]:
    return {
        "type": "response.done",
        "response": {"id": "r", "status": "completed", "usage": usage, **response},
    }


def heard(usage: Any) -> dict[str, Any]:
    return {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "usage": usage}


FULL = {
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
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91, "reasoning_tokens": 10},
}


def test_a_full_report() -> None:
    assert read_usage(done(FULL, status="cancelled")) == Usage(
        input_text=119, input_audio=13, cached_text=64, output_text=30, output_audio=91, total=253
    )


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        # No details: the dearest there can be.
        (done({"input_tokens": 5, "output_tokens": 7}), Usage(input_audio=5, output_audio=7, total=12)),
        (
            done({"input_tokens": 5, "output_tokens": 7}, output_modalities=["text"]),
            Usage(input_audio=5, output_text=7, total=12),
        ),
        # What the details leave unexplained.
        (
            done(
                {
                    "input_tokens": 9,
                    "input_token_details": {"audio_tokens": 4, "image_tokens": 2},
                    "output_tokens": 5,
                    "output_token_details": {"audio_tokens": 3},
                }
            ),
            Usage(input_text=3, input_audio=4, input_image=2, output_text=2, output_audio=3, total=14),
        ),
        # Cached tokens without their details save least first, and are never more than there was.
        (
            done({"input_token_details": {"text_tokens": 10, "audio_tokens": 5, "cached_tokens": 12}}),
            Usage(input_text=10, input_audio=5, cached_text=10, cached_audio=2, total=15),
        ),
        (
            done({"input_token_details": {"text_tokens": 10, "cached_tokens_details": {"text_tokens": 64}}}),
            Usage(input_text=10, cached_text=10, total=10),
        ),
        (heard({"type": "duration", "seconds": 2.5}), Usage(seconds=2.5)),
        (
            heard(
                {
                    "type": "tokens",
                    "input_tokens": 30,
                    "output_tokens": 8,
                    "total_tokens": 38,
                    "input_token_details": {"audio_tokens": 26, "text_tokens": 4},
                }
            ),
            Usage(input_text=4, input_audio=26, output_text=8, total=38),
        ),
        (done({}), None),
        (done(None), None),
        (heard(None), None),
        ({"type": "response.done"}, None),
        ({"type": "response.created", "response": {"usage": FULL}}, None),
        ({"type": "error"}, None),
    ],
)
def test_reports(event: dict[str, Any], usage: Usage | None) -> None:
    assert read_usage(event) == usage


numbers = st.sampled_from([None, 0, 5, 64, 2.0, -3, True, "7", float("nan"), float("inf"), [], 10**6])
details = st.none() | st.dictionaries(
    st.sampled_from(
        ["text_tokens", "audio_tokens", "image_tokens", "cached_tokens", "cached_tokens_details"]
    ),
    numbers | st.dictionaries(st.sampled_from(["text_tokens", "audio_tokens"]), numbers),
)
reports = st.fixed_dictionaries(
    {},
    optional={
        "total_tokens": numbers,
        "input_tokens": numbers,
        "output_tokens": numbers,
        "seconds": numbers,
        "input_token_details": details,
        "output_token_details": details,
    },
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(reports, st.booleans())
def test_no_report_is_understated_or_impossible(report: dict[str, Any], spoken: bool) -> None:
    usage = read_usage(done(report) if spoken else heard(report))
    if usage is None:
        assert not report
        return
    for name in ("text", "audio", "image"):
        assert 0 <= getattr(usage, f"cached_{name}") <= getattr(usage, f"input_{name}")
    for name, parts in (
        ("input_tokens", usage.input_text + usage.input_audio + usage.input_image),
        ("output_tokens", usage.output_text + usage.output_audio),
    ):
        value = report.get(name)
        if isinstance(value, int):
            assert parts >= value or value is True
