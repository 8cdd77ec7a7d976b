"""What an operator writes, and what the distribution brings."""

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtpipe_response_lock import Config, ResponseLock

HERE = Path(__file__).parent.parent
FIELDS = {field.name: field.default for field in msgspec.structs.fields(Config)}


@pytest.mark.parametrize("value", [0, 0.05, -1, 3601, float("inf"), float("nan"), "10", True])
def test_a_useless_time_limit_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.created_timeout_s"):
        msgspec.convert({"created_timeout_s": value}, Config)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `created_timeout`"):
        msgspec.convert({"created_timeout": 3}, Config)


def test_every_option_is_described_and_in_the_readme() -> None:
    schema = msgspec.json.schema(Config)["$defs"]["Config"]
    readme = (HERE / "README.md").read_text()
    for name, default in FIELDS.items():
        assert schema["properties"][name]["description"].endswith(".")
        assert f"| `{name}` | `{default}` |" in readme


def test_the_sample_shows_every_option_at_its_default() -> None:
    text = (HERE / "sample.toml").read_text()
    assert tomllib.loads(text) == {"plugins": {"response-lock": {}}}
    everything = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    table = tomllib.loads(everything)["plugins"]["response-lock"]
    msgspec.convert(table, Config)
    assert table == FIELDS


def test_the_distribution_offers_the_plugin_and_its_sample() -> None:
    (entry,) = metadata.entry_points(group="rtpipe.plugins", name="response-lock")
    assert entry.load() is ResponseLock
    assert entry.dist is not None
    assert entry.dist.name == "rtpipe-response-lock"
    sample = [f for f in entry.dist.files or () if f.as_posix() == "rtpipe_response_lock/sample.toml"]
    assert len(sample) == 1
