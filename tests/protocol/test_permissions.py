"""What clients ask for, held against lists."""

import pytest

from rtpipe.protocol.permissions import forbidden, permitted_defaults

FUNCTION = {"type": "function", "name": "dice"}


def server(**more):
    return {"type": "mcp", "server_label": "dice", "server_url": "https://example", **more}


@pytest.mark.parametrize(
    ("settings", "lists", "code"),
    [
        ({"tools": [FUNCTION]}, {"tools": {"dice"}}, None),
        ({"tools": [FUNCTION, {**FUNCTION, "name": "safe"}]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"tools": FUNCTION}, {"tools": set()}, "tool_not_allowed"),
        ({"tools": ["dice"]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"tools": [{"name": ["dice"]}]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"tools": []}, {"tools": set()}, None),
        ({"tools": None}, {"tools": set()}, None),
        ({"tools": [server()]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"tools": [server(allowed_tools=["dice"])]}, {"tools": {"dice"}}, None),
        ({"tools": [server(allowed_tools={"tool_names": ["dice"]})]}, {"tools": {"dice"}}, None),
        ({"tools": [server(allowed_tools={"read_only": True})]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"tools": [server(allowed_tools=["dice", "safe"])]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"tools": [server(allowed_tools=[])]}, {"tools": {"dice"}}, "tool_not_allowed"),
        ({"audio": {"output": {"voice": "marin"}}}, {"voices": {"marin"}}, None),
        ({"audio": {"output": {"voice": {"id": "voice_1"}}}}, {"voices": {"voice_1"}}, None),
        ({"audio": {"output": {"voice": {"id": "voice_2"}}}}, {"voices": {"voice_1"}}, "voice_not_allowed"),
        ({"audio": {"output": {"voice": ["marin"]}}}, {"voices": {"marin"}}, "voice_not_allowed"),
        ({"audio": {"output": {"voice": None}}}, {"voices": {"marin"}}, None),
        ({"audio": "loud"}, {"voices": {"marin"}}, None),
        ({"voice": "alloy"}, {"voices": {"marin"}}, "voice_not_allowed"),
        ({"output_modalities": ["text"]}, {"modalities": {"text"}}, None),
        ({"output_modalities": "audio"}, {"modalities": {"text"}}, "modality_not_allowed"),
        ({"output_modalities": [["text"]]}, {"modalities": {"text"}}, "modality_not_allowed"),
        ({"modalities": ["text", "audio"]}, {"modalities": {"text"}}, "modality_not_allowed"),
        ({"prompt": {"id": "p"}}, {"tools": set()}, "prompt_not_allowed"),
        ({"prompt": None}, {"tools": set()}, None),
        ({"prompt": {"id": "p"}, "tools": [FUNCTION], "voice": "any"}, {}, None),
    ],
)
def test_what_is_on_no_list_is_named(settings, lists, code):
    found = forbidden(settings, **lists)
    assert (found and found[0]) == code
    assert found is None or found[1].isascii()


def test_a_name_is_shown_in_part_and_escaped():
    _, message = forbidden({"tools": [{"name": "é\x1b[31m" + "x" * 1000}]}, tools=set())
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 200


@pytest.mark.parametrize(
    ("config", "lists", "defaults"),
    [
        (
            {},
            {"voices": {"cedar", "ash"}, "modalities": {"text"}},
            {"audio.output.voice": "ash", "output_modalities": ["text"]},
        ),
        (
            {"audio": {"output": {"voice": None}}},
            {"voices": {"ash"}, "modalities": None},
            {"audio.output.voice": "ash"},
        ),
        ({"audio": {"output": {"voice": "ash"}}}, {"voices": {"ash"}, "modalities": {"audio", "text"}}, {}),
        ({"output_modalities": ["text"]}, {"voices": None, "modalities": {"text"}}, {}),
        ({}, {"voices": {"voice_1"}, "modalities": None}, {"audio.output.voice": {"id": "voice_1"}}),
        ({}, {"voices": None, "modalities": None}, {}),
    ],
)
def test_what_an_upstream_would_choose_itself_is_chosen_from_the_lists(config, lists, defaults):
    assert permitted_defaults(config, **lists) == defaults
