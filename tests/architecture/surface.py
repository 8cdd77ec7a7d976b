"""The public surface of rtpipe as text, read from the sources, so that it is the same under every Python."""

import ast
from collections.abc import Iterator
from pathlib import Path

import rtpipe

ROOT = Path(__file__).parents[2]
HOST = ROOT / "rtpipe"
_HEAD = "What plugins may use of rtpipe, plugin API version {}. `make generate` writes this file.\n"


def surface() -> str:
    """Every public name with its signature, fields and methods."""
    text = _HEAD.format(rtpipe.API_VERSION)
    text += _section("rtpipe", _exported(HOST / "__init__.py"))
    text += _section("rtpipe.facts", _public(_tree(HOST / "api/facts.py")))
    text += _section("hooks", _public(_tree(HOST / "api/hooks.py"), {"Hooks"}))
    text += _section("rtpipe.testing", _exported(HOST / "testing/__init__.py"))
    for file in sorted((HOST / "protocol").glob("[!_]*.py")):
        text += _section(f"rtpipe.protocol.{file.stem}", _public(_tree(file)))
    return text


def _section(name: str, lines: Iterator[str]) -> str:
    return f"\n[{name}]\n" + "".join(f"{line}\n" for line in lines)


def _exported(init: Path) -> Iterator[str]:
    """What a package's ``__init__`` imports and names in ``__all__``, from where it is defined."""
    tree = _tree(init)
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        source = ROOT / (node.module.replace(".", "/") + ".py")
        for alias in node.names:
            if source.exists():
                yield from _public(_tree(source), {alias.name})
            else:  # a module, or what a package passes on
                yield f"from {node.module} import {alias.name}"
    yield from _public(tree)


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def _public(tree: ast.Module | ast.ClassDef, only: set[str] | None = None) -> Iterator[str]:
    for node in tree.body:
        name = _name(node)
        if name and (name in only if only else _is_public(name)):
            yield from _described(node)


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__init__"


def _name(node: ast.stmt) -> str:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def _described(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            marks = "".join(f"@{ast.unparse(each)} " for each in node.decorator_list)
            word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield f"{marks}{word} {node.name}({ast.unparse(node.args)}){returns}"
        case ast.ClassDef():
            bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
            yield f"class {node.name}({bases})" if bases else f"class {node.name}"
            for line in _public(node):
                yield f"    {line}"
        case _ if _name(node) != "__all__":
            yield ast.unparse(node)
