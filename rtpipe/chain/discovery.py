"""Find the installed plugins, and load those that the operator lists."""

import difflib
import traceback
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

import msgspec

from rtpipe.api.errors import ConfigError
from rtpipe.api.hooks import LIMITS, EventHook
from rtpipe.api.plugin import Plugin

GROUP = "rtpipe.plugins"
# Keys that mean the same in every [plugins.<stage>] table; a plugin's own options have other names.
RESERVED = ("use", "enabled", "timeout_ms", "on_error")

AnyPlugin = type[Plugin]  # type: ignore[type-arg]  # whatever its Config and State are


class Installed(NamedTuple):
    """An installed plugin: its entry point's *name*, and the *distribution* and *version* it comes from."""

    name: str
    distribution: str
    version: str


def installed() -> list[Installed]:
    """Every installed plugin by name. Imports nothing."""
    return sorted(Installed(point.name, *_origin(point)) for point in entry_points(group=GROUP))


def load_plugin(name: str) -> AnyPlugin:
    """Import the plugin *name* and check that it is one.

    Raises ``ConfigError``: not installed, installed twice, does not import, or is not what it should be.
    """
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        names = sorted({plugin.name for plugin in installed()})
        near = "".join(f" (did you mean {other}?)" for other in difflib.get_close_matches(name, names, n=1))
        raise ConfigError(f"plugin {name} is not installed{near} (installed: {', '.join(names) or 'none'})")
    whose = ", ".join(" ".join(_origin(point)) for point in points)
    if len(points) > 1:
        raise ConfigError(f"plugin {name} is installed more than once ({whose}): uninstall all but one")
    try:
        found = points[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - a plugin may do anything at import, SystemExit too
        raise ConfigError(f"plugin {name} ({whose}) cannot be imported: {_told(exc)}") from None
    if why := _fault(found):
        raise ConfigError(f"plugin {name} ({whose}) {why}")
    return found  # type: ignore[no-any-return]


def hooks_of(plugin: AnyPlugin) -> list[str]:
    """What *plugin* implements, by hook; event hooks with their types: ``client_event: response.create``."""
    plain = [name for name in LIMITS if callable(getattr(plugin, name, None))]
    marked = [getattr(getattr(plugin, name), "rtpipe_event_hook", None) for name in dir(plugin)]
    events = [
        f"{'watch ' if mark.watch else ''}{mark.hook}: {', '.join(mark.types) or 'all'}"
        for mark in marked
        if isinstance(mark, EventHook)
    ]
    return plain + sorted(events)


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown distribution", "")


def _told(exc: BaseException) -> str:
    """Type, message and place of *exc* in one line."""
    frames = traceback.extract_tb(exc.__traceback__)
    if isinstance(exc, SyntaxError):
        place = f"{exc.filename}:{exc.lineno}"
    else:
        own = [frame for frame in frames if not frame.filename.startswith("<frozen ")]
        place = f"{own[-1].filename}:{own[-1].lineno}" if own else "?"
    message = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    return f"{type(exc).__name__}: {message} ({place})"


def _fault(found: object) -> str:
    """Why *found* is no plugin; empty when it is one."""
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        return "is not a class derived from rtpipe.Plugin"
    config = found.config_type
    if not (isinstance(config, type) and issubclass(config, msgspec.Struct)):
        return "has a Config that is not a msgspec.Struct"
    settings = config.__struct_config__
    if not (settings.frozen and settings.forbid_unknown_fields):
        return f"has a Config ({config.__name__}) without frozen=True, forbid_unknown_fields=True"
    if taken := [name for name in config.__struct_encode_fields__ if name in RESERVED]:
        return f"has an option {taken[0]!r} in its Config, a key which the host reserves"
    if found.on_error not in found.on_error_choices:
        return f"has on_error {found.on_error!r}, which its on_error_choices do not contain"
    return ""


def sample_of(name: str) -> str | None:
    """The annotated TOML fragment that the installed plugin *name* carries as ``sample.toml``.

    It lies in the package that the entry point names, or, where that runs from a source tree, beside the
    package. ``None``: there is none. Imports the package.
    """
    point = next(iter(entry_points(group=GROUP, name=name)), None)
    if point is None:
        return None
    package = resources.files(point.module.partition(".")[0])
    if (inside := package / "sample.toml").is_file():
        return inside.read_text("utf-8")
    tree = Path(str(package)).parent
    if (tree / "pyproject.toml").is_file() and (beside := tree / "sample.toml").is_file():
        return beside.read_text("utf-8")
    return None
