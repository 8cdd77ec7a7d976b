"""Who knows of whom. What import-linter can say stands in pyproject.toml; here is the rest."""

import ast
import re
import subprocess
import sys

import pytest

from rtpipe.protocol.catalogue import CLIENT_TYPES, SERVER_TYPES
from tests.architecture.tree import (
    HOST,
    PLUGINS,
    ROOT,
    import_name,
    imports,
    modules,
    parse,
    project,
    strings,
)

TYPES = CLIENT_TYPES | SERVER_TYPES
_NAMES = "|".join(re.escape(kind) for kind in sorted(TYPES) if "." in kind)
# A string that is a name, or has one in quotes; sentences for people may speak of events.
DOTTED = re.compile(rf"\A(?:{_NAMES})\Z|[\"'](?:{_NAMES})[\"']")
OTHERS = [f for f in modules(HOST) if f.relative_to(HOST).parts[0] not in ("protocol", "sim")]


def where(file, node):
    return f"{file.relative_to(ROOT)}:{node.lineno}"


def test_nothing_of_the_host_names_a_first_party_plugin():
    names = [folder.name.removeprefix("rtpipe-") for folder in PLUGINS]
    packages = "|".join(rf"rtpipe[-_]{name.replace('-', '[-_]')}" for name in names)
    # A session object of the protocol has a field of that name.
    words = "|".join(name for name in names if name != "tracing")
    naming = re.compile(rf"\b(?:{packages})\b|[\"'`](?:{words})[\"'`]")
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in HOST.rglob("*")
        if file.suffix in (".py", ".toml", ".txt", ".json")
        for match in naming.finditer(file.read_text("utf-8"))
    ]
    # The test kit shows how it is used with a plugin that everybody knows.
    assert [each for each in found if not each.startswith("rtpipe/testing/")] == []


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: str(file.relative_to(HOST)))
def test_event_names_stand_in_protocol_sim_and_plugins_only(file):
    tree = parse(file)
    found = [f"{where(file, s)}: {s.value}" for s in strings(tree) if DOTTED.search(s.value)]
    found += [f"{where(file, node)}: {kind}" for node, kind in spelt_as_types(tree) if kind in TYPES]
    assert found == []


def spelt_as_types(tree):
    """Strings that stand where an event's type does: ``{"type": "…"}`` and ``event["type"] == "…"``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if is_string(key) and key.value == "type" and is_string(value):
                    yield value, value.value
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any("type" in ast.unparse(side) or "kind" in ast.unparse(side) for side in sides):
                yield from ((side, side.value) for side in sides if is_string(side))


def is_string(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_check_of_event_names_finds_them():
    source = """'response.create'; send("session.update", '{"type": "response.create"}')
log("a response.create"); x = {"type": "error"}; y = e["type"] == "error"
"""
    tree = ast.parse(source)
    found = [s.value for s in strings(tree) if DOTTED.search(s.value)]
    assert found == ["session.update", '{"type": "response.create"}']
    assert [kind for _, kind in spelt_as_types(tree)] == ["error", "error"]


def loaded_by(code):
    """The modules in an interpreter that has run *code*."""
    code += "\nimport sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    return done.stderr.split()


@pytest.mark.parametrize("package", ["rtpipe", "rtpipe.api", "rtpipe.protocol"])
def test_what_plugins_import_loads_no_trio(package):
    files = modules(HOST / package.partition(".")[2]) if "." in package else []
    inner = [f"{package}.{file.stem}" for file in files if not file.stem.startswith("_")]
    modules_loaded = loaded_by(f"import {', '.join([package, *inner])}")
    assert not {"trio", "trio_websocket", "rtpipe.sim", "rtpipe.session"} & set(modules_loaded)


def test_the_simulated_model_is_loaded_only_when_asked_for():
    code = "import rtpipe.cli.main, rtpipe.cli.run, rtpipe.cli.check, rtpipe.daemon.daemon"
    assert not [name for name in loaded_by(code) if name.startswith(("rtpipe.sim", "rtpipe.testing"))]


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda folder: folder.name)
def test_nobody_depends_on_the_package_that_is_called_rtpipe_elsewhere(folder):
    about = project(folder)
    extras = about.get("optional-dependencies", {}).values()
    names = {re.split(r"[\s\[<>=!~;]", each, maxsplit=1)[0].lower() for each in about["dependencies"]}
    names |= {re.split(r"[\s\[<>=!~;]", each, maxsplit=1)[0].lower() for extra in extras for each in extra}
    assert "rtpipe" not in names
    assert folder == ROOT or "rtpipe-gateway" in names


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_plugins_import_what_a_third_party_could(folder):
    package = folder.name.replace("-", "_")
    declared = {import_name(each) for each in project(folder)["dependencies"]}
    for file in [*modules(folder / package), *modules(folder / "tests")]:
        for_tests = "tests" in file.relative_to(folder).parts
        allowed = {package, *declared, *sys.stdlib_module_names}
        if for_tests:
            beside = ""  # what a relative import begins with
            allowed |= {beside, "pytest", "hypothesis", "trio", "msgspec", "openai", "trustme"}
        for name in imports(file):
            assert name.partition(".")[0] in allowed, f"{file}: imports {name}, which it does not declare"
            if name.partition(".")[0] == "rtpipe":
                public = name == "rtpipe" or name.startswith("rtpipe.protocol")
                public = public or (for_tests and name == "rtpipe.testing")
                assert public, f"{file}: imports {name}, which is not public"


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_plugins_are_released_in_lockstep(folder):
    host, plugin = project(ROOT), project(folder)
    assert plugin["version"] == host["version"]
    assert f"rtpipe-gateway=={host['version']}" in plugin["dependencies"]
    assert f"{plugin['name']}=={host['version']}" in host["optional-dependencies"]["standard"]
    for each in ("requires-python", "license"):
        assert plugin[each] == host[each]
