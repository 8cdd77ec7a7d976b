"""The page for authors of plugins: what is generated is fresh, and its example does what it says."""

import os
import re
import subprocess
import sys
import tomllib
import typing

import pytest

from rtpipe import Verdict
from rtpipe.api.facts import Fact
from rtpipe.api.hooks import LIMITS, Hooks
from rtpipe.testing import ChainHarness, play
from tests.docs.gateway import RTPIPE
from tests.docs.pages import ROOT, block, files
from tests.refresh import generated

PAGE = "plugins/README.md"
HOST = """
[[listen]]
address = "127.0.0.1:0"
open = true

[[upstream]]
name = "sim"
kind = "sim"
url = "ws://127.0.0.1/v1/realtime"
default_model = "gpt-realtime-2.1"
"""


def test_the_generated_parts_are_fresh():
    assert generated()[PAGE]() == (ROOT / PAGE).read_text("utf-8"), "run: make generate"


def test_every_hook_has_a_limit_and_every_fact_says_what_it_is():
    hooks = {name for name in vars(Hooks) if not name.startswith("_")}
    assert hooks == set(LIMITS)
    assert all(getattr(Hooks, name).__doc__ for name in hooks)
    assert all(fact.__doc__ for fact in Fact.__subclasses__())


def test_every_verdict_is_in_the_table():
    text = (ROOT / PAGE).read_text("utf-8")
    for verdict in typing.get_args(Verdict):
        name = "list" if typing.get_origin(verdict) else verdict.__name__.replace("NoneType", "None")
        assert re.search(rf"(?m)^\| (a list of |an )?`?{name}\b|^\| a {name} of ", text), name


@pytest.fixture
def example(tmp_path):
    """The example, written out and as good as installed."""
    for name, text in files(PAGE).items():
        (tmp_path / name).write_text(text, "utf-8")
    about = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))["project"]
    info = tmp_path / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    ((group, points),) = about["entry-points"].items()
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    return tmp_path


def run(command, folder):
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(  # noqa: S603
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_of_the_example_pass(example):
    told = run([sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"], example)
    assert "2 passed" in told


def test_the_example_is_a_stage_as_soon_as_it_is_named(example):
    config = example / "rtpipe.toml"
    config.write_text(config.read_text("utf-8") + HOST)
    listed = run([*RTPIPE, "plugins", "list", "--config", str(config)], example)
    assert re.search(r"image-limit +image-limit +image-limit 1\.0 +yes", listed)
    checked = run([*RTPIPE, "check", "--config", str(config)], example)
    assert re.search(r"conversation\.item\.create +image-limit", checked)


def test_the_example_imports_what_it_declares(example):
    about = tomllib.loads((example / "pyproject.toml").read_text("utf-8"))["project"]
    assert "rtpipe" not in about["dependencies"]
    source = (example / "image_limit.py").read_text("utf-8")
    imported = set(re.findall(r"(?m)^(?:from|import) ([a-z]+)", source))
    assert imported <= {"rtpipe", "msgspec", "typing"}


async def test_the_transcript_of_the_example_can_be_played(autojump_clock):
    async with ChainHarness({}) as chain:
        await play(block(PAGE, "transcript"), chain)
        chain.check_fates()
