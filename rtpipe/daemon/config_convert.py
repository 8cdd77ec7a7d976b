"""Turn tables into structs, and msgspec's complaints into an operator's line."""

import copy
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from rtpipe.api.errors import ConfigError
from rtpipe.api.secret import Secret
from rtpipe.daemon.config_files import Sources, Table, nearest
from rtpipe.daemon.toml_positions import Path

T = TypeVar("T")

_PLACE = re.compile(r" - at `(?:key in )?\$((?:[.\[][^`]*)?)`\Z")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)
_EXPECTED = re.compile(r"Expected `([^`]+)`(?:, got `[^`]+`)?(.*)\Z", re.DOTALL)

_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
}
_REFERENCE = (
    "a secret is not written here but referred to: "
    '{ env = "NAME" }, { file = "/path" } or { credential = "name" }'
)
_SHOWN_CHARACTERS = 40


def convert(value: Table, to: type[T], sources: Sources, at: Path, also: Iterable[str] = ()) -> T:
    """Make a *to* of the table *value*, which stands at the path *at* of *sources*.

    *also* are keys that may stand in the table though *to* does not have them: they are suggested too.
    Raises ``ConfigError`` for the first thing that is wrong.
    """
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as exc:
        message, steps = _split(str(exc))
        path = _real_path(value, to, steps, str(exc))
        where, what = _explain(message, value, to, path, also)
    except ConfigError as exc:
        where, what = (), str(exc)
    except RecursionError:
        where, what = (), "nested too deeply"
    except Exception as exc:  # noqa: BLE001 - a Config with a faulty __post_init__
        where, what = (), f"{to.__name__} cannot be made: {type(exc).__name__}: {exc}"
    raise sources.error((*at, *where), what)


def _split(message: str) -> tuple[str, list[str | int]]:
    """``Expected … - at `$.listen[0].port``` to its sentence and ``["listen", 0, "port"]``."""
    place = _PLACE.search(message)
    if place is None:
        return message, []
    steps: list[str | int] = [
        int(step[2]) if step[2] and step[2].isdigit() else step[1] or step[2]
        for step in _STEP.finditer(place[1])
    ]
    return message[: place.start()], steps


def _real_path(value: Table, to: type, steps: list[str | int], complaint: str) -> Path:
    """*steps* with each ``...``, msgspec's word for any key of a dict, replaced by the key at fault.

    That is the one which causes the same complaint when it stands alone.
    """
    trial: Any = copy.deepcopy(value)
    here = trial
    path: Path = ()
    for step in steps:
        if step == "...":
            items = dict(here)
            for key, item in items.items():
                here.clear()
                here[key] = item
                if _complaint(trial, to) == complaint:
                    step = key
                    break
            else:
                return path
        path = (*path, step)
        here = here[step]
    return path


def _complaint(value: Table, to: type) -> str:
    try:
        msgspec.convert(value, to)
    except msgspec.ValidationError as exc:
        return str(exc)
    return ""


def _explain(message: str, value: Table, to: type, path: Path, also: Iterable[str]) -> tuple[Path, str]:
    """Where, and what to tell the operator."""
    kinds = kinds_at(inspect.type_info(to), path)
    if unknown := _UNKNOWN.match(message):
        known = [field.encode_name for field in fields(kinds)] + ([] if path else list(also))
        return (*path, unknown[1]), f"unknown option{nearest(unknown[1], known)}"
    if missing := _MISSING.match(message):
        wanted = [_description(field) for field in fields(kinds) if field.encode_name == missing[1]]
        return (*path, missing[1]), f"missing ({wanted[0]})" if any(wanted) else "missing"
    found: Any = value
    for step in path:
        found = found[step]
    if not isinstance(found, dict) and any(getattr(kind, "cls", None) is Secret for kind in kinds):
        return path, _REFERENCE
    if message.startswith("Invalid enum value"):
        choices = [str(v) for kind in kinds for v in getattr(kind, "values", ())]
        return path, f"expected {' or '.join(choices)}, got {_shown(found)}{nearest(str(found), choices)}"
    if expected := _EXPECTED.match(message):
        words = [_WORDS.get(word, word) for word in expected[1].split(" | ") if word != "null"]
        what = f"expected {' or '.join(words)}{expected[2]}"
        # A string that is only of the wrong form may be a secret in the wrong place.
        secretive = isinstance(found, str) and "a string" in words
        return path, what if secretive else f"{what}, got {_shown(found)}"
    return path, message


def kinds_at(info: inspect.Type, path: Path) -> list[inspect.Type]:
    """What the type says may stand at *path*: several for a union."""
    if isinstance(info, inspect.Metadata):
        return kinds_at(info.type, path)
    if isinstance(info, inspect.UnionType):
        return [kind for member in info.types for kind in kinds_at(member, path)]
    if not path:
        return [info]
    inner: list[inspect.Type] = []
    if isinstance(info, inspect.StructType):
        inner = [field.type for field in info.fields if field.encode_name == path[0]]
    elif isinstance(info, inspect.DictType):
        inner = [info.value_type]
    elif isinstance(info, inspect.TupleType):
        inner = list(info.item_types)
    elif item := getattr(info, "item_type", None):
        inner = [item]
    return [kind for member in inner for kind in kinds_at(member, path[1:])]


def fields(kinds: Iterable[inspect.Type]) -> list[inspect.Field]:
    return [field for kind in kinds if isinstance(kind, inspect.StructType) for field in kind.fields]


def _description(field: inspect.Field) -> str:
    schema = field.type.extra_json_schema if isinstance(field.type, inspect.Metadata) else None
    return str((schema or {}).get("description", "")).rstrip(".")


def _shown(value: object) -> str:
    """A wrong value in TOML's own notation, cut short; containers only by kind."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        cut = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
        return f'"{cut}"'
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
