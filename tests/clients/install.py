"""Installs the clients, each as its list pins it: Python environments, npm packages, Debian packages."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

NODE: Final = Path(__file__).parent / "node"
PYTHON: Final = Path(__file__).parent / "python"
_ENVIRONMENTS: Final = Path(__file__).parents[2] / ".venv/clients"
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


def python(name: str) -> Path:
    """The Python of the environment that python/NAME.txt lists in full. Raises NotInstalled."""
    wanted = PYTHON / f"{name}.txt"
    home = _ENVIRONMENTS / name
    installed = home / "installed.txt"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        venv.create(home, clear=True, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install", "--quiet"]
        _run(*pip, "--no-deps", "--only-binary", ":all:", "--requirement", str(wanted))
        shutil.copyfile(wanted, installed)
    return home / "bin/python"


def environments() -> list[str]:
    """Names of the lists of Python clients."""
    return sorted(path.stem for path in PYTHON.glob("*.txt"))


def pinned(name: str, package: str) -> str:
    """The version of a package in python/NAME.txt."""
    pins = dict(line.split("==") for line in (PYTHON / f"{name}.txt").read_text().split() if "==" in line)
    return str(pins[package])


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
