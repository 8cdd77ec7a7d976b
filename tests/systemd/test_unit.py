"""The unit, as systemd itself reads it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rtpipe.daemon.drain import STOP_LIMIT_S

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/rtpipe.service"
ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here")
def test_systemd_finds_no_fault(tmp_path):
    # It wants the program to be there.
    text = re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", UNIT.read_text("utf-8"))
    unit = tmp_path / "rtpipe.service"
    unit.write_text(text, "utf-8")
    command = [ANALYZE, "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    # It looks at the units this one is ordered after, too; their faults are not ours.
    assert [line for line in (done.stdout + done.stderr).splitlines() if "rtpipe" in line] == []


def test_it_runs_what_there_is(capsys):
    from rtpipe.cli.main import main

    text = UNIT.read_text("utf-8")
    (start,) = re.findall(r"(?m)^ExecStart=/opt/rtpipe/bin/rtpipe (.*)$", text)
    verb, option, file = start.split()
    assert main([verb, "--help"]) == 0
    assert option in capsys.readouterr().out
    assert file == "/etc/rtpipe/rtpipe.toml"
    (credential,) = re.findall(r"(?m)^LoadCredential=([^:]+):", text)
    assert f'credential = "{credential}"' in (ROOT / "config/rtpipe.toml").read_text("utf-8")
    assert float(re.search(r"TimeoutStopSec=(\d+)", text)[1]) > STOP_LIMIT_S
