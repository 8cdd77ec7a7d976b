"""A gateway in a process of its own, as somebody who reads the README starts it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RTPIPE = [sys.executable, "-m", "rtpipe.cli.main"]


@contextmanager
def gateway(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """``rtpipe run`` with *arguments*; gives the address it says it is ready at."""
    with subprocess.Popen(  # noqa: S603
        [*RTPIPE, "run", *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            ready = process.stdout.readline()
            address = re.search(r"ready at wss?://(\S+?)/v1/realtime", ready)
            assert address, ready or process.stderr.read()
            yield address[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    assert process.returncode == 0
