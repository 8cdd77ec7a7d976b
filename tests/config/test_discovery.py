"""Finding and loading plugins: what is refused, and in which words."""

import sys

import pytest

from rtpipe import ConfigError
from rtpipe.chain.discovery import hooks_of, installed, load_plugin, sample_of
from rtpipe.daemon.config_load import load

from .conftest import HOST


def why(name):
    with pytest.raises(ConfigError) as caught:
        load_plugin(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_installed_imports_nothing(distribution):
    package = distribution("loud", "raise AssertionError", dist="dist-loud")
    assert ("loud", "dist-loud", "1.5") in installed()
    assert package not in sys.modules


def test_load(example):
    plugin = load_plugin("example")
    assert plugin.__name__ == "Example"
    assert hooks_of(plugin) == ["client_event: response.create", "watch server_event: all"]
    assert sample_of("example").startswith("# An example.")


def test_only_what_is_asked_for_is_loaded(example, distribution):
    other = distribution("other", "")
    load_plugin("example")
    assert f"{other}.plugin" not in sys.modules


def test_a_sample_beside_the_package_of_a_source_tree(distribution, tmp_path):
    distribution("tree", "")
    assert sample_of("tree") is None
    (tmp_path / "site" / "pyproject.toml").touch()
    (tmp_path / "site" / "sample.toml").write_text("beside = 1")
    assert sample_of("tree") == "beside = 1"


def test_not_installed(example):
    assert why("exampel").startswith("plugin exampel is not installed (did you mean example?) (installed: ")


def test_installed_twice(distribution):
    distribution("twin", "", dist="one")
    distribution("twin", "", dist="two")
    assert "more than once" in why("twin")


IMPORT = [
    ("x = 1\nimport no_such_module", "ModuleNotFoundError: No module named 'no_such_module'", 2),
    ("\n\nraise RuntimeError('why\\nnot')", "RuntimeError: why\\nnot", 3),
    ("import sys\nsys.exit('bye')", "SystemExit: bye", 2),
    ("x = 1\ndef broken(:", "SyntaxError: invalid syntax", 2),
    ("x = 1", "AttributeError: module", None),
]


@pytest.mark.parametrize(("source", "message", "line"), IMPORT, ids=[each[1] for each in IMPORT])
def test_import_fails(config, distribution, source, message, line):
    package = distribution("bad", source, dist="dist-bad")
    path = config(HOST.replace("[]", '["bad"]'))
    with pytest.raises(ConfigError) as caught:
        load(path).stages[0].load_plugin()
    complaint = str(caught.value)
    assert f"{path}:1: chain[0]: plugin bad (dist-bad 1.5) cannot be imported: {message}" in complaint
    assert complaint.isprintable()
    if line:
        assert complaint.endswith(f"{package}/plugin.py:{line})")


STRUCT = """\
import msgspec
from rtpipe import Plugin
class C(msgspec.Struct{}):
  {}
class Example(Plugin[C, None]): {}
"""
STRICT = ", frozen=True, forbid_unknown_fields=True"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("Example = 3", "is not a class derived from rtpipe.Plugin"),
        ("class Example: ...", "is not a class derived from rtpipe.Plugin"),
        (
            "from rtpipe import Plugin\nclass Example(Plugin[dict, None]): ...",
            "a Config that is not a msgspec.Struct",
        ),
        (STRUCT.format("", "a: int = 1", "..."), "without frozen=True, forbid_unknown_fields=True"),
        (
            STRUCT.format(", frozen=True", "a: int = 1", "..."),
            "without frozen=True, forbid_unknown_fields=True",
        ),
        (STRUCT.format(STRICT, "enabled: int = 1", "..."), "has an option 'enabled' in its Config"),
        (STRUCT.format(STRICT, "a: int = 1", "on_error = 'no'"), "has on_error 'no', which its"),
    ],
)
def test_not_a_plugin(distribution, source, complaint):
    distribution("bad", source, dist="dist-bad")
    assert why("bad").startswith("plugin bad (dist-bad 1.5) ")
    assert complaint in why("bad")


def test_a_stage_of_another_name_is_placed_at_its_use(config):
    path = config(HOST.replace("[]", '["x"]') + '[plugins.x]\nuse = "no-such-plugin"\n')
    with pytest.raises(ConfigError, match=r":14: plugins.x.use: plugin no-such-plugin is not installed"):
        load(path).stages[0].load_plugin()
