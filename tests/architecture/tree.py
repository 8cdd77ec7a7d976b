"""The sources of the repository, as the checks of its architecture read them."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = ROOT / "rtpipe"
PLUGINS = sorted(folder for folder in (ROOT / "plugins").iterdir() if (folder / "pyproject.toml").exists())


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def project(folder: Path) -> dict:
    """The ``project`` table of a distribution."""
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def imports(file: Path) -> set[str]:
    """The modules a file imports, those for type checking and within functions too; ``from a import b`` gives
    ``a``."""
    found = set()
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The string constants in *tree* that are no docstrings."""
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node


def import_name(requirement: str) -> str:
    """What a requirement such as ``trio-websocket>=0.12`` is imported as."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
    if name.startswith("opentelemetry-"):
        return "opentelemetry"  # a package of many distributions
    names = {"rtpipe-gateway": "rtpipe", "pillow": "PIL", "PyJWT": "jwt"}
    return names.get(name) or re.sub(r"[-.]+", "_", name).lower()


def tracked() -> list[Path]:
    """What is under version control; without a repository, every file but hidden ones."""
    listing = ["git", "ls-files", "-z"]
    try:
        done = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
        files = [ROOT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = [f for f in ROOT.rglob("*") if not any(p.startswith(".") for p in f.relative_to(ROOT).parts)]
    return [file for file in files if file.is_file()]
