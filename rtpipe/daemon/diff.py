"""How two configurations differ, for people: keys with the value before and after, without secrets.

A value is shown only where the type of its option is known, and is nothing but text, numbers and the like.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from rtpipe.api.secret import Secret
from rtpipe.chain.discovery import RESERVED
from rtpipe.chain.instances import StageSpec
from rtpipe.daemon.config import Config, StageTable
from rtpipe.daemon.config_convert import fields, kinds_at
from rtpipe.daemon.config_files import Sources, dotted, one_line
from rtpipe.daemon.toml_positions import Path as KeyPath

MOST_LINES: Final = 100
_MASKED: Final = "(secret)"
_HIDDEN: Final = "(not shown)"
_UNSET: Final = "unset"
_CHARACTERS: Final = 60
_PLAIN: Final = (
    inspect.BoolType,
    inspect.EnumType,
    inspect.FloatType,
    inspect.IntType,
    inspect.LiteralType,
    inspect.StrType,
)
_USER: Final = re.compile(r'(?<=://)[^/\s"@]*@')

_type_info = cache(inspect.type_info)
Kinds = Sequence[inspect.Type]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: what was written, and the stages that it is for."""

    sources: Sources
    specs: Sequence[StageSpec]

    def value(self, path: KeyPath) -> Any:
        """What counts at *path*, as TOML has it: what is written, else the default; ``None`` for nothing."""
        value = self.sources.at(path)
        return self._default(path) if value is None else value

    def kinds(self, path: KeyPath) -> Kinds:
        """What may stand at *path*; nothing where that is not known."""
        around = self._around(path)
        return next((kinds for kinds in around if _is_secret(kinds)), around[-1])

    def _default(self, path: KeyPath) -> Any:
        tables = self._around(path)[-2:-1]
        for field in (field for kinds in tables for field in fields(kinds)):
            if field.encode_name == path[-1] and not field.required:
                given = field.default
                if given is msgspec.NODEFAULT:
                    given = field.default_factory()
                return msgspec.json.decode(msgspec.json.encode(given, order="deterministic"))
        return None

    def _around(self, path: KeyPath) -> list[Kinds]:
        """What may stand at *path* and, before that, at the tables and arrays around it."""
        found = self._root(path)
        if found is None:
            return [()]
        root, rest = found
        info = _type_info(root)
        return [kinds_at(info, rest[:length]) for length in range(len(rest) + 1)]

    def _root(self, path: KeyPath) -> tuple[type, KeyPath] | None:
        """The type that describes *path*, and what of the path is within that."""
        if path[:1] != ("plugins",):
            return Config, path
        if len(path) > 2 and path[2] in RESERVED:
            return StageTable, path[2:]
        own = [spec.plugin_type.config_type for spec in self.specs if path[1:2] == (spec.name,)]
        return (own[0], path[2:]) if own else None


def lines(different: Sequence[KeyPath], old: Side, new: Side) -> list[str]:
    """A printable line for each key that differs, ``KEY: BEFORE -> AFTER``; at most `MOST_LINES` and one."""
    found = [_line(path, old, new) for path in different[:MOST_LINES]]
    if (more := len(different) - MOST_LINES) > 0:
        found.append(f"and {more} more")
    return [one_line(line) for line in found]


def _line(path: KeyPath, old: Side, new: Side) -> str:
    name = dotted(path)
    before, after = old.value(path), new.value(path)
    kinds_before, kinds_after = old.kinds(path), new.kinds(path)
    if isinstance(before, list) and isinstance(after, list):
        parts = _listed("added", kinds_after, [each for each in after if each not in before])
        parts += _listed("removed", kinds_before, [each for each in before if each not in after])
        return f"{name}: {'; '.join(parts) or 'in another order'}"
    was, becomes = _shown(kinds_before, before), _shown(kinds_after, after)
    if was == becomes:
        return f"{name}: changed {was}"
    return f"{name}: {was} -> {becomes}"


def _listed(what: str, kinds: Kinds, items: list[Any]) -> list[str]:
    inner = _within(kinds, 0)
    return [f"{what} {', '.join(_shown(inner, each) for each in items)}"] if items else []


def _shown(kinds: Kinds, value: Any) -> str:
    """In TOML's own notation, cut short."""
    text = _told(kinds, value)
    if len(text) <= _CHARACTERS:
        return text
    return f"{text[:_CHARACTERS]}… ({len(text)} characters)"


def _told(kinds: Kinds, value: Any) -> str:
    if value is None:
        return _UNSET
    if _is_secret(kinds):
        return _MASKED
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_told(_within(kinds, key), value[key])}' for key in value)} }}"
    if isinstance(value, list):
        return f"[{', '.join(_told(_within(kinds, 0), each) for each in value)}]"
    if not any(isinstance(kind, _PLAIN) for kind in kinds):
        return _HIDDEN
    return _USER.sub("…@", json.dumps(value, ensure_ascii=False))


def _within(kinds: Kinds, key: str | int) -> Kinds:
    return [inner for kind in kinds for inner in kinds_at(kind, (key,))]


def _is_secret(kinds: Kinds) -> bool:
    return any(isinstance(kind, inspect.StructType) and kind.cls is Secret for kind in kinds)
