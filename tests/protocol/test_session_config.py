import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe.protocol import session_config as sc

fixed = settings(max_examples=300, derandomize=True, deadline=None)

leaves = st.sampled_from(
    [None, "", [], {}, 0, True, "x", {"type": "server_vad"}, [{"name": "t"}], {"audio": 1}]
)
side = (
    st.none() | st.just(7) | st.dictionaries(st.sampled_from(["format", "voice", "turn_detection"]), leaves)
)
audio = (
    st.none()
    | st.just("no")
    | st.fixed_dictionaries({}, optional={"input": side, "output": side, "x": leaves})
)
configs = st.fixed_dictionaries(
    {}, optional={"audio": audio, "instructions": leaves, "tools": leaves, "input": leaves, "type": leaves}
)
paths = st.sampled_from(
    [
        "instructions",
        "tools",
        "audio",
        "audio.input",
        "audio.input.turn_detection",
        "audio.output.voice",
        "a.b.c",
    ]
)


@fixed
@given(configs, configs, configs)
def test_merging_twice_is_merging_the_merged(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    before = copy.deepcopy((a, b, c))
    assert sc.merge(sc.merge(a, b), c) == sc.merge(a, sc.merge(b, c))
    assert (a, b, c) == before


@fixed
@given(configs, paths, leaves)
def test_set_then_get(config: dict[str, Any], path: str, value: Any) -> None:
    before = copy.deepcopy(config)
    changed = sc.set_(config, path, value)
    assert sc.get(changed, path, "missing") == value
    assert sc.get(sc.without(changed, path), path, "missing") == "missing"
    assert sc.pick(changed, [path]) == sc.set_({}, path, value)
    assert config == before


@fixed
@given(configs, configs)
def test_changed_paths_are_what_turns_one_into_the_other(a: dict[str, Any], b: dict[str, Any]) -> None:
    changed = sc.changed_paths(a, b)
    assert len(changed) == len(set(changed))
    assert sc.changed_paths(a, a) == []
    result = sc.merge(a, sc.pick(b, changed))
    for path in changed:
        if sc.get(b, path, "missing") == "missing":
            result = sc.without(result, path)
    assert sc.changed_paths(result, b) == []


def test_only_the_three_containers_merge() -> None:
    base = {
        "audio": {
            "input": {"format": 1, "turn_detection": {"type": "server_vad", "threshold": 0.5}},
            "output": {},
        },
        "tracing": {"a": 1},
        "instructions": "long",
        "tools": [1],
    }
    update = {
        "audio": {"input": {"turn_detection": {"type": "semantic_vad"}, "transcription": None}},
        "tracing": {"b": 2},
        "instructions": "",
        "tools": [],
    }
    assert sc.merge(base, update) == {
        "audio": {
            "input": {"format": 1, "turn_detection": {"type": "semantic_vad"}, "transcription": None},
            "output": {},
        },
        "tracing": {"b": 2},
        "instructions": "",
        "tools": [],
    }
    assert sc.changed_paths(base, sc.merge(base, update)) == [
        *("audio.input.turn_detection", "audio.input.transcription", "tracing", "instructions", "tools")
    ]
    assert sc.merge({"audio": {"input": {"x": 1}}}, {"audio": {"input": None}}) == {
        "audio": {"input": {"x": 1}}
    }


def test_paths_that_are_not_there() -> None:
    assert sc.get({"audio": None}, "audio.input.format", 3) == 3
    assert sc.get({"audio": {"input": {"format": None}}}, "audio.input.format", 3) is None
    assert sc.without({"a": 1}, "audio.input") == {"a": 1}
    assert sc.without({"audio": 5}, "audio.input") == {"audio": 5}
    assert sc.pick({"a": None, "b": 1}, ["a", "audio.input"]) == {"a": None}


@pytest.mark.parametrize(
    ("param", "path"),
    [
        ("session.audio.input.turn_detection.foo", "audio.input.turn_detection"),
        ("session.audio.input.foo", "audio.input.foo"),
        ("session.audio.input", "audio.input"),
        ("session.audio.foo.bar", "audio.foo"),
        ("session.tools[0].name", "tools"),
        ("session.type", "type"),
        *(
            (param, None)
            for param in ("session", "session.", "type", "response.tools", "sessions.x", "", None)
        ),
    ],
)
def test_param_to_path(param: str | None, path: str | None) -> None:
    assert sc.param_to_path(param) == path


def detecting(value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "realtime", "audio": {"input": {"turn_detection": value}}, **more}


def test_detector() -> None:
    assert sc.detector({}) == sc.DEFAULT_DETECTOR
    assert sc.detector(detecting(None)) is None
    assert sc.detector(detecting({"type": "semantic_vad"})) == {"type": "semantic_vad"}


@pytest.mark.parametrize(
    ("config", "creates"),
    [
        ({}, True),
        (detecting(None), False),
        (detecting({"type": "server_vad"}), True),
        (detecting({"type": "server_vad", "create_response": None}), True),
        (detecting({"type": "server_vad", "create_response": False}), False),
        (detecting({"type": "server_vad"}, type="transcription"), False),
    ],
)
def test_creates_responses(config: dict[str, Any], creates: bool) -> None:
    before = copy.deepcopy(config)
    assert sc.creates_responses(config) is creates
    assert sc.with_create_response(config, creates) is config
    off = sc.with_create_response(config, False)
    assert not sc.creates_responses(off)
    assert config == before
    if creates:
        detector = sc.detector(config)
        assert detector is not None
        assert sc.detector(off) == {**detector, "create_response": False}
        assert sc.creates_responses(sc.with_create_response(off, True))


def test_what_never_answers_is_left_alone() -> None:
    for config in (detecting(None), detecting({"type": "server_vad"}, type="transcription")):
        assert sc.with_create_response(config, True) is config


def test_session_type() -> None:
    assert [sc.session_type(c) for c in ({}, {"type": None}, {"type": "transcription"})] == [
        *("realtime", "realtime", "transcription")
    ]


@pytest.mark.parametrize(
    ("format_", "rate"),
    [
        ({"type": "audio/pcm", "rate": 24000}, 48000),
        ({"type": "audio/pcmu"}, 8000),
        ({"type": "audio/pcma"}, 8000),
        (None, 48000),
        ({"type": []}, 48000),
    ],
)
def test_audio_bytes_per_second(format_: Any, rate: int) -> None:
    assert sc.audio_bytes_per_second({"audio": {"output": {"format": format_}}}) == rate
    assert sc.audio_bytes_per_second({}) == 48000
