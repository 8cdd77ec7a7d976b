"""Installs the clients: npm packages beside their list, Debian packages where they are missing."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

NODE: Final = Path(__file__).parent / "node"
_INSTALLED: Final = NODE / "node_modules/.package-lock.json"
_LIMIT_S: Final = 300


class NotInstalled(Exception):
    """One line that says what is missing."""


def debian(*packages: str) -> None:
    """See that these programs are there, whose packages have the same names. Raises NotInstalled."""
    missing = [name for name in packages if shutil.which(name) is None]
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"install {names} first (apt-get install {names})")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get", "update", "-qq", **environment)
    _run("apt-get", "install", "-qq", "--no-install-recommends", *missing, **environment)


def node() -> Path:
    """The Node.js that openai-node wants, with it installed. Raises NotInstalled."""
    lock = NODE / "package-lock.json"
    if not _INSTALLED.exists() or _INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        if shutil.which("npm") is None:
            raise NotInstalled("install Node.js with npm first, whatever version")
        _run("npm", "ci", "--no-audit", "--no-fund", cwd=NODE)
        _INSTALLED.touch()
    return NODE / "node_modules/.bin/node"


def npm_version(package: str) -> str:
    """The version of an installed npm package."""
    return str(json.loads((NODE / "node_modules" / package / "package.json").read_text())["version"])


def version_of(*command: str) -> str:
    """The first thing in a program's output that looks like a version."""
    words = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S).stdout.split()  # noqa: S603
    return next(word for word in words if word[0].isdigit() and "." in word)


def _run(*command: str, cwd: Path | None = None, **variables: str) -> None:
    environment = {**os.environ, **variables}
    done = subprocess.run(  # noqa: S603
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_LIMIT_S
    )
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
