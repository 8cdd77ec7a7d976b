"""What lies where: files of a readable size, a README in every folder, nothing that speaks of elsewhere."""

import re
from importlib import resources

import msgspec
import pytest

from rtpipe.chain.discovery import load_plugin
from tests.architecture.tree import HOST, PLUGINS, ROOT, modules, project, tracked

MAX_LINES = 400
HEADINGS = ["What it does", "Options", "Where in the chain", "What it does not do", "Try it"]
INNER = [folder for folder in sorted(HOST.iterdir()) if folder.is_dir() and folder.name != "__pycache__"]
FOLDERS = [ROOT, *(ROOT / name for name in ("config", "plugins", "rtpipe", "systemd", "tests"))]
FOLDERS += [*INNER, *PLUGINS]
# Spelt in pieces, so that this file is not the one that has them.
UNWANTED = re.compile("/" + r"work/|/" + r"root/|\bTO" + r"DO\b|\bFIX" + r"ME\b|\bXX" + r"X\b")


@pytest.mark.parametrize("file", modules(HOST), ids=lambda file: str(file.relative_to(HOST)))
def test_no_file_of_the_host_is_long(file):
    assert len(file.read_text("utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_folder_says_what_it_is(folder):
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith("# ")
    assert len(text.split()) > 40


@pytest.mark.parametrize("folder", INNER, ids=lambda folder: folder.name)
def test_a_folder_of_the_host_names_each_of_its_modules(folder):
    text = (folder / "README.md").read_text("utf-8")
    files = [file.name for file in tracked() if file.parent == folder and file.suffix == ".py"]
    missing = [name for name in files if not name.startswith("_") and f"`{name}`" not in text]
    assert missing == []
    named = set(re.findall(r"`([a-z_]+\.py)`", text))
    assert named <= {file.name for file in ROOT.rglob("*.py")}


def test_relative_links_lead_somewhere():
    broken = []
    for page in [file for file in tracked() if file.suffix == ".md"]:
        text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", page.read_text("utf-8"))
        broken += [
            f"{page.relative_to(ROOT)}: {target}"
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
            if "://" not in target and not (page.parent / target).exists()
        ]
    assert broken == []


def test_the_repository_speaks_of_rtpipe_alone():
    found = []
    for file in tracked():
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in UNWANTED.finditer(text)]
    assert found == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_the_readme_of_a_plugin_has_the_fixed_headings(folder):
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith(f"# {folder.name}\n")
    assert re.findall(r"(?m)^## (.+)$", text) == HEADINGS


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_the_sample_of_a_plugin_and_its_readme_name_every_option(folder):
    for name in project(folder)["entry-points"]["rtpipe.plugins"]:
        plugin = load_plugin(name)
        sample = (folder / "sample.toml").read_text("utf-8")
        readme = (folder / "README.md").read_text("utf-8")
        for option in all_options(plugin.config_type):
            assert re.search(rf"\b{option} = |\[+plugins\.{name}\.{option}\b", sample), option
            assert f"`{option}`" in readme or f".{option}]]`" in readme, option


def all_options(struct, seen=()):
    """The names of a Config's options, those of structs within included."""
    for field in msgspec.inspect.type_info(struct).fields:
        yield field.encode_name
        for inner in structs_in(field.type):
            if inner.__module__.startswith("rtpipe_") and inner not in seen:
                yield from all_options(inner, (*seen, inner))


def structs_in(info):
    match info:
        case msgspec.inspect.StructType():
            yield info.cls
        case msgspec.inspect.Metadata():
            yield from structs_in(info.type)
        case msgspec.inspect.UnionType():
            for each in info.types:
                yield from structs_in(each)
        case _:
            inner = [getattr(info, name, None) for name in ("item_type", "value_type")]
            for each in inner:
                if each is not None:
                    yield from structs_in(each)


def test_the_host_and_its_plugins_are_typed():
    assert (resources.files("rtpipe") / "py.typed").is_file()
    for folder in PLUGINS:
        assert (folder / folder.name.replace("-", "_") / "py.typed").is_file()
