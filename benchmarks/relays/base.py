"""What a relay is to the benchmark, and how one gets an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.load import Target

INSTALL_LIMIT_S = 600


class Unavailable(Exception):
    """The relay cannot be had here; the text says why."""


class Relay:
    """One way to get from a client to an upstream."""

    name: ClassVar[str]
    resource: ClassVar[str] = "/v1/realtime?model=gpt-realtime"
    key: ClassVar[str] = "sk-benchmark-0123456789"

    def prepare(self, cache: Path, *, install: bool) -> None:
        """Get it, if need be. Raises `Unavailable`."""

    def command(self, port: int, upstream_port: int, work: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        """What starts it: the command and what its environment has more. *work* is an empty directory."""
        raise NotImplementedError

    def versions(self) -> Mapping[str, str]:
        """Of whatever matters for its speed."""
        raise NotImplementedError

    def target(self, port: int) -> Target:
        return Target("127.0.0.1", port, self.resource, {"Authorization": f"Bearer {self.key}"})


def environment(directory: Path, *requirements: str, install: bool) -> Path:
    """A virtual environment with the newest of *requirements*. Returns its python; raises `Unavailable`."""
    python = directory / "bin" / "python"
    done = directory / "benchmark-ready"
    if not done.exists():
        if not install:
            raise Unavailable("not installed, and installing is off")
        run([sys.executable, "-m", "venv", str(directory)])
        run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", *requirements])
        done.touch()
    return python


def package_versions(python: str | Path, *packages: str) -> dict[str, str]:
    """Of packages in an environment, and of its python."""
    script = (
        "import platform, sys; from importlib.metadata import version\n"
        "print('python', platform.python_version())\n"
        "for name in sys.argv[1:]: print(name, version(name))"
    )
    lines = run([str(python), "-c", script, *packages]).splitlines()
    return dict(line.split(maxsplit=1) for line in lines)


def run(command: Sequence[str]) -> str:
    """Run to the end. Returns what was written; raises `Unavailable`."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, env=env, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(command[0]).name}: {error}") from None
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Unavailable(f"{Path(command[0]).name} failed: {why[:200]}")
    return done.stdout
