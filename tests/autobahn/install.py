"""Installs the Autobahn test suite, which lives on Python 2.7, into an environment of its own."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ENVIRONMENT: Final = HERE.parent.parent / ".venv" / "autobahn"
_LAST_FOR_2_7: Final = "virtualenv<20.22"


class NotInstalled(Exception):
    """The text says what is missing."""


def wstest() -> Path:
    """The suite's program, installed if need be. Raises NotInstalled."""
    program = ENVIRONMENT / "env" / "bin" / "wstest"
    if not program.exists():
        python = _python27()
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        tools = ENVIRONMENT / "tools"
        _run(python, "-m", "pip", "install", "--quiet", "--target", str(tools), _LAST_FOR_2_7)
        _run(python, "-m", "virtualenv", "--quiet", str(ENVIRONMENT / "env"), PYTHONPATH=str(tools))
        pip = str(ENVIRONMENT / "env" / "bin" / "pip")
        _run(pip, "install", "--quiet", "-r", str(HERE / "requirements.txt"))
    return program


def _python27() -> str:
    on_path = [found] if (found := shutil.which("python2.7")) else []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in [*on_path, *map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7")))]:
        # One on the path may be no more than pyenv's stand-in for a version that is not selected.
        if subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True).returncode == 0:  # noqa: S603
            return candidate
    raise NotInstalled(
        "the Autobahn test suite needs a python2.7 with pip, on the path or under pyenv; there is none"
    )


def _run(*command: str, **variables: str) -> None:
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
