"""What an operator writes, and what the distribution brings."""

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtpipe_tool_dispatcher import Config, ToolDispatcher, ToolOptions

HERE = Path(__file__).parent.parent
FIELDS = {field.name: field.default for field in msgspec.structs.fields(Config) if field.name != "tools"}
TOOL = {field.name for field in msgspec.structs.fields(ToolOptions)}


@pytest.mark.parametrize(
    "options",
    [
        {"filler": "music"},
        {"filler_after_s": 0},
        {"max_result_chars": 10},
        {"repeat_window_s": -1},
        {"breaker_failures": 0},
        {"tools": {"a": {"late": "keep"}}},
        {"tools": {"a": {"cache_ttl_s": -1}}},
        {"tools": {"a": {"timeout_s": 0}}},
        {"tools": {"a": {"timeout": 1}}},
        {"fillers": "none"},
    ],
    ids=str,
)
def test_useless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, Config)


def test_every_option_is_described_and_in_the_readme() -> None:
    definitions = msgspec.json.schema(Config)["$defs"]
    readme = (HERE / "README.md").read_text()
    for struct in ("Config", "ToolOptions"):
        for name, option in definitions[struct]["properties"].items():
            assert option["description"].endswith("."), name
            assert f"| `{name}` |" in readme
    for name, default in FIELDS.items():
        if not name.endswith(("message", "instructions")):
            assert f"| `{name}` | `{msgspec.json.encode(default).decode()}` |" in readme
    assert FIELDS["timeout_message"] in readme.replace("\n", " ")


def test_the_sample_shows_every_option_at_its_default() -> None:
    text = (HERE / "sample.toml").read_text()
    assert tomllib.loads(text) == {"plugins": {"tool-dispatcher": {}}}
    everything = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line
        for line in text.splitlines()
    )
    table = tomllib.loads(everything)["plugins"]["tool-dispatcher"]
    msgspec.convert(table, Config)
    (tool,) = table.pop("tools").values()
    assert table == FIELDS
    assert set(tool) == TOOL


def test_the_distribution_offers_the_plugin_and_its_sample() -> None:
    (entry,) = metadata.entry_points(group="rtpipe.plugins", name="tool-dispatcher")
    assert entry.load() is ToolDispatcher
    assert entry.dist is not None
    assert entry.dist.name == "rtpipe-tool-dispatcher"
    sample = [f for f in entry.dist.files or () if f.as_posix() == "rtpipe_tool_dispatcher/sample.toml"]
    assert len(sample) == 1
