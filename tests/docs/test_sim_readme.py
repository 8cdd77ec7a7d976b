"""The page of the simulated model: its examples do what it says, against ``rtpipe sim`` as it says."""

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import websockets

from rtpipe.sim import GRAMMAR
from rtpipe.testing import transcript_of_log
from tests.docs.pages import block

PAGE = "rtpipe/sim/README.md"
RTPIPE = [sys.executable, "-m", "rtpipe.cli.main"]


@pytest.fixture
def sim(tmp_path: Path):
    """The command of the page, on a free port and without waiting; gives host:port and the log."""
    command = shlex.split(block(PAGE, "tested: start").removeprefix("$ rtpipe "), comments=True)
    command[command.index("--port") + 1] = "0"
    log = tmp_path / "log.jsonl"
    with subprocess.Popen(  # noqa: S603
        [*RTPIPE, *command, "--pace", "0", "--log", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield re.search(r"ws://(\S+?)/v1/realtime", process.stdout.readline())[1], log
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def asking(address: str):
    """The function of the page's client."""
    code = block(PAGE, "tested: client").replace("127.0.0.1:8765", address)
    names = {}
    exec(compile(code, PAGE, "exec"), names)  # noqa: S102
    return names["ask"]


def test_the_client_is_answered_and_the_log_is_a_transcript(sim):
    address, log = sim
    assert asyncio.run(asking(address)("how are you")) == "You said: how are you"
    transcript = transcript_of_log(log.read_text("utf-8").splitlines())
    assert "upstream <- response.create" in transcript
    assert "client <- response.done" in transcript


def test_the_order_is_followed(sim):
    address, _ = sim
    command = shlex.split(block(PAGE, "tested: order").removeprefix("$ curl "))
    body, url = command[command.index("-d") + 1], command[-1].replace("127.0.0.1:8765", address)
    with urllib.request.urlopen(url, body.encode(), timeout=10) as answer:  # noqa: S310
        assert json.load(answer) == {"sessions": []}
    with pytest.raises(websockets.ConnectionClosed, match="1011"):
        asyncio.run(asking(address)("how are you"))


def test_the_words_of_faults_are_those_of_help():
    assert block(PAGE, "tested: faults") == GRAMMAR
    shown = subprocess.run(  # noqa: S603
        [*RTPIPE, "sim", "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert all(f"  {line}\n" in shown for line in GRAMMAR.splitlines())
