"""The units, as systemd itself reads them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rtpipe.daemon.addresses import parse_address
from rtpipe.daemon.config_limits import Limits
from rtpipe.daemon.drain import STOP_LIMIT_S
from rtpipe.daemon.watchdog import BEAT_S, STALL_S

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "systemd").glob("rtpipe*.*"))
UNIT = ROOT / "systemd/rtpipe.service"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here")


def analyze(*words):
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture
def units(tmp_path):
    """The units with a program that exists: systemd wants it to be there."""
    for unit in UNITS:
        text = re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{sys.executable}", unit.read_text("utf-8"))
        (tmp_path / unit.name).write_text(text, "utf-8")
    return tmp_path


@needs_systemd
def test_systemd_finds_no_fault(units):
    done = analyze("verify", "--man=no", *map(str, units.iterdir()))
    # It looks at the units these are ordered after, too; their faults are not ours.
    assert [line for line in (done.stdout + done.stderr).splitlines() if "rtpipe" in line] == []


@needs_systemd
def test_how_exposed_it_is(units):
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=15", str(units / UNIT.name))
    assert done.returncode == 0, done.stdout
    (exposure,) = re.findall(r"Overall exposure level for rtpipe.service: ([\d.]+)", done.stdout)
    assert float(exposure) <= 1.5
    assert f"says {exposure}" in (ROOT / "systemd/README.md").read_text("utf-8")


def value(key, text=None):
    (found,) = re.findall(rf"(?m)^{key}=(\S+)", text or UNIT.read_text("utf-8"))
    return found


def test_it_runs_what_there_is(capsys):
    from rtpipe.cli.main import main

    text = UNIT.read_text("utf-8")
    (start,) = re.findall(r"(?m)^ExecStart=/opt/rtpipe/bin/rtpipe (.*)$", text)
    verb, option, file = start.split()
    assert main([verb, "--help"]) == 0
    assert option in capsys.readouterr().out
    assert file == "/etc/rtpipe/rtpipe.toml"
    credential = value("LoadCredential").partition(":")[0]
    assert f'credential = "{credential}"' in (ROOT / "config/rtpipe.toml").read_text("utf-8")


def test_it_waits_as_long_as_things_take():
    assert float(value("TimeoutStopSec")) >= Limits().drain_timeout_s + STOP_LIMIT_S + 15
    assert float(value("WatchdogSec")) > 3 * (BEAT_S + STALL_S)


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.suffix == ".socket"], ids=lambda unit: unit.name
)
def test_the_names_of_sockets(unit):
    name = value("FileDescriptorName", unit.read_text("utf-8"))
    assert parse_address(f"fd:{name}") == name
    assert f'address = "fd:{name}"' in unit.read_text("utf-8")
    assert f"fd:{name}" in (ROOT / "systemd/README.md").read_text("utf-8")
