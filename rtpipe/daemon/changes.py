"""Which keys differ between two configurations, and which of them wait for the next start."""

from typing import Any

import msgspec

from rtpipe.daemon.config import Config
from rtpipe.daemon.config_files import Table, dotted, one_line
from rtpipe.daemon.toml_positions import Path as KeyPath

_DOOR_LIMITS = (
    "max_message_bytes",
    "max_reassembly_bytes",
    "max_head_bytes",
    "handshake_timeout_s",
    "write_deadline_s",
)
"""What the doors were opened with."""
_AT_NEXT_START: tuple[KeyPath, ...] = (
    ("listen",),
    ("admin",),
    ("audit",),
    ("signs", "window_s"),
    ("state_dir",),
    *(("limits", key) for key in _DOOR_LIMITS),
)


def changed(old: Table, new: Table) -> list[KeyPath]:
    """The keys whose values differ; in arrays of tables, where both have the same length, those within."""
    return _changed(old, new, ())


def waits(path: KeyPath) -> bool:
    """Whether a change of this key takes effect at the next start."""
    return any(path[: len(each)] == each for each in _AT_NEXT_START)


def names(paths: list[KeyPath]) -> list[str]:
    """As an operator writes them, printable."""
    return [one_line(dotted(path)) for path in paths]


def in_force(new: Config, running: Config) -> Config:
    """*new*, but what waits for the next start is as it runs."""
    replace = msgspec.structs.replace
    limits = replace(
        new.limits,
        **{key: getattr(running.limits, key) for key in _DOOR_LIMITS},
    )
    return replace(
        new,
        listen=running.listen,
        admin=running.admin,
        audit=running.audit,
        signs=replace(new.signs, window_s=running.signs.window_s),
        state_dir=running.state_dir,
        limits=limits,
    )


def _changed(old: Any, new: Any, path: KeyPath) -> list[KeyPath]:
    # A table that is not there is one without keys.
    old = {} if old is None and isinstance(new, dict) else old
    new = {} if new is None and isinstance(old, dict) else new
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key in dict.fromkeys((*old, *new))
            for found in _changed(old.get(key), new.get(key), (*path, key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _tables(old + new):
        return [
            found
            for i, (before, after) in enumerate(zip(old, new, strict=True))
            for found in _changed(before, after, (*path, i))
        ]
    # True == 1 and 1 == 1.0, but not to whoever wrote them.
    return [] if type(old) is type(new) and old == new else [path]


def _tables(items: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in items)
