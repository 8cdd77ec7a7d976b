"""The annotated sample and the table of options, both written from the structs themselves."""

import json
import textwrap
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import msgspec

from rtpipe.chain.discovery import AnyPlugin, sample_of
from rtpipe.daemon.config import Admin, Config, Listen, StageTable, Upstream
from rtpipe.daemon.config_limits import Limits
from rtpipe.daemon.config_observe import Alerts, Audit, Log, Redaction, Signs
from rtpipe.daemon.config_session import Persist, SessionTable

_WIDTH = 100
_HEAD = """\
#:schema rtpipe.schema.json
# The configuration of rtpipe. README.md beside this file tells how it works; `rtpipe check` reads it and
# says what it understood. What is commented out is optional, and shows its default or an example.
"""
_TABLES: dict[str, type[msgspec.Struct]] = {
    "[[listen]]": Listen,
    "[[upstream]]": Upstream,
    "[limits]": Limits,
    "[session]": SessionTable,
    "[persist]": Persist,
    "[log]": Log,
    "[audit]": Audit,
    "[redaction]": Redaction,
    "[signs]": Signs,
    "[alerts]": Alerts,
    "[admin]": Admin,
}
_PLAIN = ("chain", "state_dir", "watch")  # what Config has besides tables


class Option(NamedTuple):
    """One key. *default* and *example* are TOML, empty where there is none."""

    key: str
    description: str
    bounds: str
    needed: bool
    default: str
    example: str


def sample(plugins: Mapping[str, AnyPlugin]) -> str:
    """A whole configuration: the host's, then what each of *plugins* (by name) says in its own sample."""
    fragments = {name: text.strip() for name in _ordered(plugins) if (text := sample_of(name))}
    parts = [_HEAD]
    for option in options(Config):
        if option.key == "chain":
            parts.append(_comment(option.description) + f"chain = {_toml(list(fragments))}\n")
        elif option.key in _PLAIN:
            parts.append(_lines(option))
    for table, struct in _TABLES.items():
        lines = "".join(_lines(option) for option in options(struct))
        parts.append(f"{_comment(about(struct))}{table}\n{lines}")
    reserved = "".join(_comment(f"{o.key}: {o.description}") for o in options(StageTable))
    parts.append(_comment(about(StageTable)) + reserved)
    parts += [f"# ---- {name} ----\n\n{text}\n" for name, text in fragments.items()]
    return "\n".join(parts)


def options_table() -> str:
    """Every option of the host, one Markdown table for each TOML table."""
    tables: dict[str, type[msgspec.Struct]] = {"": Config, **_TABLES, "[plugins.<stage>]": StageTable}
    text = ""
    for table, struct in tables.items():
        text += f"**`{table}`**: {about(struct)}\n\n" if table else ""
        text += "| option | default | meaning |\n|---|---|---|\n"
        for option in options(struct):
            if struct is Config and option.key not in _PLAIN:
                continue
            default = f"`{option.default}`" if option.default else "needed" if option.needed else "none"
            bounds = f" {option.bounds}." if option.bounds else ""
            text += f"| `{option.key}` | {default} | {option.description}{bounds} |\n"
        text += "\n"
    return text.rstrip("\n") + "\n"


def options(struct: type[msgspec.Struct]) -> list[Option]:
    """The keys of one table, in the order of the struct."""
    schema = _schema_of(struct)
    return [
        Option(
            key=key,
            description=about["description"],
            bounds=_bounds(about),
            needed=key in schema["required"],
            default="" if about.get("default") in (None, "") else _toml(about["default"]),
            example=_toml(about["examples"][0]) if "examples" in about else "",
        )
        for key, about in schema["properties"].items()
    ]


def about(struct: type[msgspec.Struct]) -> str:
    """What the table is for, in one paragraph."""
    return " ".join(_schema_of(struct)["description"].split())


def _schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    (reference,), definitions = msgspec.json.schema_components([struct])
    schema: dict[str, Any] = definitions[reference["$ref"].rpartition("/")[2]]
    return schema


def _bounds(about: dict[str, Any]) -> str:
    branches = [about, *about.get("anyOf", ())]
    choices = [_toml(choice) for branch in branches for choice in branch.get("enum", ())]
    if choices:
        return "One of " + ", ".join(f"`{choice}`" for choice in choices)
    limits = [(branch["minimum"], branch["maximum"]) for branch in branches if "minimum" in branch]
    return "".join(f"{_toml(least)} to {_toml(most)}" for least, most in limits)


def _lines(option: Option) -> str:
    """An option in the sample. A secret is written out, since most who need one would overlook it."""
    mark = "" if option.needed or option.key == "api_key" else "# "
    bounds = f" {option.bounds.replace('`', '')}." if option.bounds else ""
    return (
        _comment(option.description + bounds) + f"{mark}{option.key} = {option.example or option.default}\n"
    )


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        pairs = ", ".join(
            f"{json.dumps(key) if '.' in key else key} = {_toml(v)}" for key, v in value.items()
        )
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(value)


def _ordered(plugins: Mapping[str, AnyPlugin]) -> list[str]:
    """Names in an order that suits what plugins say of each other, otherwise by name."""
    sorter = TopologicalSorter({name: list[str]() for name in sorted(plugins)})
    for name, plugin in sorted(plugins.items()):
        sorter.add(name, *[other for other in plugin.after if other in plugins])
        for other in plugin.before:
            if other in plugins:
                sorter.add(other, name)
    try:
        return list(sorter.static_order())
    except CycleError:
        return sorted(plugins)
