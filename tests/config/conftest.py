import sys
import textwrap

import pytest

HOST = """\
chain = []

[[listen]]
address = "127.0.0.1:8787"
open = true

[[upstream]]
name = "openai"
kind = "openai"
url = "wss://api.openai.com/v1/realtime"
api_key = { env = "TEST_API_KEY" }
default_model = "a-model"
"""


@pytest.fixture
def config(tmp_path):
    """Write the configuration (and drop-ins, by name) and return its path."""

    def write(text=HOST, **drop_ins):
        path = tmp_path / "rtpipe.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        for name, content in drop_ins.items():
            folder = tmp_path / "conf.d"
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.toml").write_text(content)
        return path

    return write


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution with one plugin: its module's source, and whatever else lies in its package."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    packages = []

    def install(name, source, target="plugin:Example", dist=None, **files):
        package = f"dist_{name.replace('-', '_')}_{len(packages)}"
        packages.append(package)
        (site / package).mkdir()
        (site / package / "__init__.py").write_text("")
        (site / package / "plugin.py").write_text(textwrap.dedent(source))
        for file, text in files.items():
            (site / package / file.replace("_toml", ".toml")).write_text(text)
        info = site / f"{package}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist or package}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[rtpipe.plugins]\n{name} = {package}.{target}\n")
        return package

    yield install
    for module in [m for m in sys.modules if m.partition(".")[0] in packages]:
        del sys.modules[module]


EXAMPLE = """\
from typing import Annotated
import msgspec
from rtpipe import Command, Plugin, Secret, on_client, watch_server

class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_edge_px: Annotated[int, msgspec.Meta(ge=1, description="Pixels of the longer edge.")] = 800
    token: Secret | None = None
    named: dict[str, int] = {}

class Example(Plugin[Config, None]):
    on_error_choices = ("close", "drop")

    @on_client("response.create")
    def look(self, session, event):
        return None

    @watch_server()
    def see(self, session, event):
        return None

    @classmethod
    def commands(cls):
        def arguments(parser):
            parser.add_argument("--code", type=int, default=0)
        return [Command("greet", "say hello", arguments, lambda args: print("hello") or args.code)]
"""


@pytest.fixture
def example(distribution):
    """The plugin ``example``, installed."""
    return distribution("example", EXAMPLE, sample_toml="# An example.\n[plugins.example]\nmax_edge_px = 3\n")
