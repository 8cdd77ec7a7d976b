import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY, config


@pytest.fixture(autouse=True)
def upstream_key(monkeypatch):
    """Daemons in the test's own process find the gateway's key where those in another do."""
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)


@pytest.fixture
def place():
    """Where a Unix socket may be: its path must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "place.sock"


@pytest.fixture
def text(tmp_path):
    """Make a configuration whose state is in *tmp_path*."""

    def make(*args, **kwargs):
        return config(tmp_path / "state", *args, **kwargs)

    return make


@pytest.fixture
def file(tmp_path, text):
    """Write a configuration and return its path."""

    def write(*args, **kwargs):
        path = tmp_path / "rtpipe.toml"
        path.write_text(text(*args, **kwargs))
        return path

    return write


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a plugin: for this process, and by the returned environment for daemons in another."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = []

    def install(source, name="faulty"):
        module = f"test_plugin_{name}"
        modules.append(module)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[rtpipe.plugins]\n{name} = {module}:{name.capitalize()}\n")
        return {"PYTHONPATH": ":".join([str(site), *filter(None, sys.path)])}

    yield install
    for module in modules:
        sys.modules.pop(module, None)
