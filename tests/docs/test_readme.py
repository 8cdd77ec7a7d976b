"""The front page says what is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rtpipe.cli import main as cli
from tests.docs.gateway import RTPIPE, gateway
from tests.docs.pages import ROOT, block
from tests.refresh import demo, demo_in_readme, normalised

README = ROOT / "README.md"
OPEN = """
[[listen]]
address = "127.0.0.1:0"
open = true
origins = ["https://app.example"]

[[upstream]]
name = "sim"
kind = "sim"
url = "ws://127.0.0.1/v1/realtime"
default_model = "gpt-realtime-2.1"
"""


def run(command, folder, **environment):
    done = subprocess.run(  # noqa: S603
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def open_gateway(tmp_path):
    config = tmp_path / "rtpipe.toml"
    config.write_text(OPEN)
    with gateway("--sim", "--sim-pace", "0", "--config", str(config), folder=tmp_path) as address:
        yield address


def test_the_output_of_the_demo_is_fresh():
    assert normalised(demo()) == normalised(demo_in_readme()), "run: make generate"


def test_a_demo_that_cannot_start_says_why_in_one_line(tmp_path):
    config = tmp_path / "rtpipe.toml"
    config.write_text(OPEN.replace("127.0.0.1:0", "192.0.2.1:8787"))
    command = [*RTPIPE, "demo", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot listen at 192.0.2.1:8787" in done.stderr


def test_the_client_snippet_works_with_a_changed_address_and_nothing_else(open_gateway, tmp_path):
    snippet = tmp_path / "client.py"
    snippet.write_text(block("README.md", "tested: client").replace("127.0.0.1:8787", open_gateway))
    assert run([sys.executable, str(snippet)], tmp_path) == "You said: Hello!\n"


def test_the_client_snippet_works_with_the_environment_alone(open_gateway, tmp_path):
    text, count = re.subn(
        r"AsyncOpenAI\(base_url=.*\)\n", "AsyncOpenAI()\n", block("README.md", "tested: client")
    )
    assert count == 1
    snippet = tmp_path / "client.py"
    snippet.write_text(text)
    url = f"http://{open_gateway}/v1"
    told = run([sys.executable, str(snippet)], tmp_path, OPENAI_BASE_URL=url, OPENAI_API_KEY="any")
    assert told == "You said: Hello!\n"


def test_the_client_snippet_works_over_tls_with_a_certificate_of_dev_cert(tmp_path):
    said = run([*RTPIPE, "dev-cert", str(tmp_path / "tls")], tmp_path)
    (listen,) = re.findall(r"(?m)^tls = .*$", said)
    exported = dict(re.findall(r"(?m)^export (\w+)=(\S+)", said))
    config = tmp_path / "rtpipe.toml"
    config.write_text(OPEN.replace("open = true", f"open = true\n{listen}"))
    with gateway("--sim", "--sim-pace", "0", "--config", str(config), folder=tmp_path) as address:
        url = f"https://localhost:{address.rpartition(':')[2]}/v1"
        snippet = tmp_path / "client.py"
        snippet.write_text(block("README.md", "tested: client").replace("http://127.0.0.1:8787/v1", url))
        environment = {"SSL_CERT_FILE": exported["SSL_CERT_FILE"]}
        assert run([sys.executable, str(snippet)], tmp_path, **environment) == "You said: Hello!\n"


def test_a_browser_gets_in_by_subprotocol_from_an_allowed_page(open_gateway):
    url, offered, prefix = re.findall(r'"([^"]+)"', block("README.md", "tested: browser"))
    url = url.replace("127.0.0.1:8787", open_gateway)
    protocols = [offered, f"{prefix}key"]
    with connect(url, subprotocols=protocols, origin="https://app.example") as connection:
        assert connection.subprotocol == offered
        assert '"session.created"' in connection.recv(timeout=5)
    with pytest.raises(InvalidStatus) as refused:
        connect(url, subprotocols=[offered], origin="https://other.example")
    assert refused.value.response.status_code == 403


def test_the_commands_for_running_it_work(tmp_path):
    text = block("README.md", "tested: shell").replace(
        "export OPENAI_API_KEY=…", "export OPENAI_API_KEY=none"
    )
    *commands, last = re.sub(r"(?m)\s+#.*$", "", text).strip().splitlines()
    assert last == "rtpipe run --config rtpipe.toml"
    # Port 8787 may be taken here.
    commands.insert(1, "sed -i 's/127.0.0.1:8787/127.0.0.1:0/' rtpipe.toml")
    rtpipe = tmp_path / "bin/rtpipe"
    rtpipe.parent.mkdir()
    rtpipe.write_text(f'#!/bin/sh\nexec {" ".join(RTPIPE)} "$@"\n')
    rtpipe.chmod(0o700)
    path = f"{rtpipe.parent}:{os.environ['PATH']}"
    said = run(["/bin/sh", "-ec", "\n".join(commands)], tmp_path, PATH=path)
    assert "rtpipe.toml: ok" in said
    with gateway(*last.split()[2:], folder=tmp_path, environment={"OPENAI_API_KEY": "none"}) as address:
        url = f"ws://{address}/v1/realtime"
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
        assert refused.value.response.status_code == 401


def test_what_make_does_is_in_the_makefile():
    targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"))
    for page in (README, ROOT / "tests/README.md", ROOT / "rtpipe/README.md"):
        for target in re.findall(r"(?m)(?:`|^)make ([a-z]+)", page.read_text("utf-8")):
            assert target in targets, f"{page.name}: make {target}"


@pytest.mark.parametrize("page", ["README.md", "config/README.md", "systemd/README.md", "plugins/README.md"])
def test_every_verb_that_is_named_exists(page):
    verbs = {*cli.VERBS, *cli.of_plugins()}
    text = (ROOT / page).read_text("utf-8")
    shell = "".join(re.findall(r"(?ms)^```sh\n(.*?)^```$", text))
    named = re.findall(r"(?m)(?:^|/)rtpipe ([a-z][a-z-]*)", shell)
    named += re.findall(r"`(?:\w+=\S+ )?rtpipe ([a-z][a-z-]*)", text)
    assert named
    assert set(named) <= verbs


def test_every_verb_is_described():
    text = (ROOT / "rtpipe/cli/README.md").read_text("utf-8")
    for verb in cli.VERBS:
        assert f"`{verb.replace('-', '_')}.py`" in text
    assert Path(cli.__file__).parent == ROOT / "rtpipe/cli"
