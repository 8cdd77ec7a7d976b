"""What is generated: fresh, complete, and true."""

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from rtpipe import Command
from rtpipe.chain.discovery import installed, load_plugin
from rtpipe.daemon.config import Admin, Config, Listen, Log, StageTable, Upstream
from rtpipe.daemon.config_limits import Limits
from rtpipe.daemon.config_load import load
from rtpipe.daemon.config_session import SessionTable
from rtpipe.daemon.sample import options, sample
from rtpipe.daemon.schema import schema, schema_text
from tests.man_page import man_page
from tests.refresh import generated

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"


@pytest.mark.parametrize(
    "name",
    [
        "rtpipe.toml",
        "rtpipe.schema.json",
        "jsonlines.schema.json",
        "admin.openapi.json",
        "rtpipe.1",
        "README.md",
    ],
)
def test_checked_in_files_are_fresh(name):
    wanted = generated()[f"config/{name}"]()
    assert (CONFIG / name).read_text("utf-8") == wanted, "run: make generate"


def test_the_manual_page_has_every_argument_of_every_kind():
    def arguments(parser):
        parser.add_argument("--pace", "-p", default=2, help="how fast (default: %(default)s)")
        parser.add_argument("files", nargs="*", metavar="FILE", help=".hidden ones \\ too")
        parser.add_argument("--on", action="store_true", help="100 %% of it")
        inner = parser.add_subparsers().add_parser("inner", help="one of it")
        inner.add_argument("how", choices=("fast", "slow"), help="how")
        inner.add_argument("--secret", help=argparse.SUPPRESS)

    page = man_page([Command("do", "do it", arguments, lambda args: 0)])
    assert (
        ".SS rtpipe do\ndo it\n"
        ".TP\n.B \\-\\-pace, \\-p PACE\nhow fast (default: 2)\n"
        ".TP\n.B FILE …\n\\&.hidden ones \\e too\n"
        ".TP\n.B \\-\\-on\n100 % of it\n"
        ".SS rtpipe do inner\none of it\n"
        ".TP\n.B fast | slow\nhow\n"
        ".SH EXIT STATUS\n"
    ) in page


@pytest.mark.skipif(not shutil.which("man"), reason="there is no man")
def test_man_shows_the_manual_page_without_a_warning():
    command = ["man", "--warnings=w", "--local-file", str(CONFIG / "rtpipe.1")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)  # noqa: S603
    assert not done.stderr
    assert "completion" in done.stdout


@pytest.mark.parametrize("struct", [Config, Listen, Upstream, Limits, Log, Admin, StageTable, SessionTable])
def test_every_option_is_described_and_in_the_sample(struct):
    text = sample({})
    for option in options(struct):
        assert option.description.endswith(".")
        assert option.example or option.default or option.key in ("listen", "upstream"), option.key
        written = (
            rf"(?m)^(# )?{option.key}( = |: )|^# ?\[+{option.key}[\].]|^\[+{option.key}[\].]|\[{option.key}\."
        )
        assert re.search(written, text), option.key


@pytest.mark.parametrize("with_options", [False, True])
def test_the_sample_loads_and_shows_defaults(config, with_options):
    text = sample({})
    if with_options:
        # But for the one that an upstream of another kind has.
        text = re.sub(r"(?m)^# ((?!token)[a-z_]+ = .*)$", r"\1", text)
    loaded = load(config(text))
    assert not loaded.warnings
    # The only limit that has an example instead of a default.
    assert msgspec.structs.replace(loaded.config.limits, max_memory_bytes=None) == Limits()
    assert loaded.config.log == Log()


def test_the_checked_in_sample_loads_with_its_plugins():
    loaded = load(CONFIG / "rtpipe.toml")
    assert not loaded.warnings
    for stage in loaded.stages:
        stage.plugin_config(stage.load_plugin().config_type)


def test_a_plugin_comes_with_its_own_words(config, example):
    plugins = {"example": load_plugin("example")}
    text = sample(plugins)
    assert 'chain = ["example"]' in text
    assert text.endswith("# An example.\n[plugins.example]\nmax_edge_px = 3\n")
    load(config(text))
    table = schema(plugins)["properties"]["plugins"]["properties"]["example"]
    assert table["properties"]["max_edge_px"]["minimum"] == 1
    assert "on_error" in table["properties"]


def test_samples_are_ordered_as_plugins_ask(distribution):
    source = "from rtpipe import Plugin\nclass Example(Plugin):\n  before = {}\n  after = {}\n"
    distribution("a", source.format((), ("b",)), sample_toml="[plugins.a]\n")
    distribution("b", source.format((), ("x",)), sample_toml="[plugins.b]\n")
    distribution("c", source.format(("b",), ()), sample_toml="[plugins.c]\n")
    distribution("d", source.format((), ()))
    text = sample({name: load_plugin(name) for name in "abcd"})
    assert 'chain = ["c", "b", "a"]' in text


def test_two_plugins_may_both_call_their_options_config(example, distribution):
    from .conftest import EXAMPLE

    distribution("another", EXAMPLE.replace("max_edge_px", "other_px"))
    tables = schema({name: load_plugin(name) for name in ("example", "another")})["properties"]["plugins"]
    assert "other_px" in tables["properties"]["another"]["properties"]
    assert "max_edge_px" in tables["properties"]["example"]["properties"]


def test_every_reference_of_the_schema_leads_somewhere():
    plugins = {each.name: load_plugin(each.name) for each in installed()}
    text = schema_text(plugins)
    definitions = json.loads(text)["$defs"]
    for name in re.findall(r'"#/\$defs/([^"]+)"', text):
        assert name in definitions


def test_structs_are_frozen_and_strict():
    for struct in [Config, Listen, Upstream, Limits, Log, Admin, StageTable]:
        assert struct.__struct_config__.frozen
        assert struct.__struct_config__.forbid_unknown_fields
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"no_such_option": 1}, struct)
