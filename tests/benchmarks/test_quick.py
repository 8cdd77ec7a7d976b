"""The benchmark works: not how fast anything is, but that nothing is lost on the way."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quick(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-install", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    own = json.loads(file.read_text())["relays"]["rtpipe"]
    assert own["failed"] == {}
    assert set(own["rounds"]) == {"down", "up", "paced-20"}
    for (measured,) in own["rounds"].values():
        assert measured["received"] == measured["sent"] > 0
        assert measured["same_size"]
        assert measured["relay_cpu_s"] > 0
