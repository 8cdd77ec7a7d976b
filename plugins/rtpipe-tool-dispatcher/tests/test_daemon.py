"""The real daemon with OpenAI's client; see through_the_daemon.py, which also runs by itself."""

import re
import subprocess
import sys
from pathlib import Path


def test_calls_of_every_kind_through_the_daemon() -> None:
    program = Path(__file__).with_name("through_the_daemon.py")
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    slow, hold_on, never, broken, ten, thrice = done.stdout.splitlines()
    assert re.fullmatch(r"slow +[1-9]\d* audio events while a tool hung for 4 s, the longest gap .*", slow)
    assert re.fullmatch(r"hold_on +heard after \d.\d s, the answer afterwards", hold_on)
    assert '"error":"That is taking longer than it should, so there is no answer yet.","retry":"now"' in never
    assert '"error":"That did not work because of a technical problem."' in broken
    assert ten.endswith("ten results in one answer, 2 responses in all")
    assert thrice.endswith("3 results of one order")
