"""Load the configuration: read, merge, convert, and judge what no type can."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rtpipe.api.errors import ConfigError
from rtpipe.api.plugin import OnError
from rtpipe.api.secret import Secret
from rtpipe.chain.discovery import RESERVED, AnyPlugin, load_plugin
from rtpipe.daemon import config_files
from rtpipe.daemon.addresses import PassedName, parse_address, parse_mode, parse_network, parse_socket_path
from rtpipe.daemon.config import Config, Listen, StageTable
from rtpipe.daemon.config_convert import convert
from rtpipe.daemon.config_files import Sources, Table, nearest
from rtpipe.daemon.config_upstream import ageing, faults
from rtpipe.daemon.toml_positions import Path as KeyPath

T = TypeVar("T")

_STAGE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")
# An event's origin is one of these words or the name of a stage.
_NO_STAGE_NAMES = ("client", "upstream", "host")


@dataclass(frozen=True)
class StageConfig:
    """One stage of the chain as the operator wrote it. Equal stages need no new plugin instance.

    *timeout_ms* and *on_error* are ``None`` where the plugin's own choice stands; *options* are the raw
    TOML values of the plugin's Config.
    """

    name: str
    plugin: str
    enabled: bool
    timeout_ms: int | None
    on_error: OnError | None
    options: Table = field(repr=False)
    sources: Sources = field(repr=False, compare=False)
    position: int = field(compare=False)

    def load_plugin(self) -> AnyPlugin:
        """Import this stage's plugin. Raises ``ConfigError`` at the line that names it."""
        named_at: KeyPath = ("chain", self.position)
        if self.plugin != self.name:
            named_at = ("plugins", self.name, "use")
        try:
            plugin = load_plugin(self.plugin)
        except ConfigError as exc:
            raise self.sources.error(named_at, str(exc)) from None
        if self.on_error is not None and self.on_error not in plugin.on_error_choices:
            choices = " or ".join(plugin.on_error_choices)
            raise self.error(f"plugin {self.plugin} allows only {choices}", "on_error")
        return plugin

    def plugin_config(self, config_type: type[T]) -> T:
        """The options as the plugin's own Config. Raises ``ConfigError``."""
        return convert(self.options, config_type, self.sources, ("plugins", self.name), RESERVED)

    def error(self, what: str, *path: str | int) -> ConfigError:
        """An error at *path* in this stage's table."""
        return self.sources.error(("plugins", self.name, *path), what)


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be run.

    *stages* is the chain without the stages that are switched off, which are in *disabled*. *warnings*
    are printable lines.
    """

    config: Config
    stages: tuple[StageConfig, ...]
    disabled: tuple[StageConfig, ...]
    warnings: tuple[str, ...]
    sources: Sources = field(repr=False, compare=False)

    @property
    def path(self) -> Path:
        return self.sources.path


def load(path: Path | None) -> Loaded:
    """Load the file *path* (``None``: see ``config_files.find``) and its drop-ins.

    Raises ``ConfigError``: one printable line for the first mistake. Imports no plugin, reads no secret.
    """
    return build(config_files.read_all(config_files.find(path)))


def from_text(text: str, name: str) -> Loaded:
    """Load a configuration that stands in no file; *name* stands for it in errors. Raises ``ConfigError``."""
    return build(Sources([config_files.parse(Path(name), text)]))


def build(sources: Sources, today: date | None = None) -> Loaded:
    """Judge what was read, on the day *today*. Raises ``ConfigError``."""
    config = convert(sources.data, Config, sources, ())
    _check_listeners(config, sources)
    _check_admin(config, sources)
    _check_upstreams(config, sources)
    if config.state_dir is not None and not Path(config.state_dir).is_absolute():
        raise sources.error(("state_dir",), "expected an absolute path")
    _check_chain(config, sources)
    stages = [_stage(i, name, config, sources) for i, name in enumerate(config.chain)]
    return Loaded(
        config,
        tuple(stage for stage in stages if stage.enabled),
        tuple(stage for stage in stages if not stage.enabled),
        tuple(_warnings(config, sources, today or date.today())),
        sources,
    )


def check_secrets(
    loaded: Loaded, plugin_configs: Mapping[str, object] | None = None, *, upstreams: bool = True
) -> None:
    """See that every secret referred to is there.

    *plugin_configs* are the stages' Configs by the stage's name; without *upstreams* only those count, as
    when a simulated model takes the upstreams' place. Raises ``ConfigError`` for the first
    secret that is missing; the secrets themselves are not kept.
    """
    found = list(_secrets(loaded.config, ())) if upstreams else []
    for stage, config in (plugin_configs or {}).items():
        found += _secrets(config, ("plugins", stage))
    for path, secret in found:
        try:
            secret.reveal()
        except (ConfigError, ValueError) as exc:  # ValueError: not text, or no file name
            raise loaded.sources.error(path, str(exc)) from None


def check_doors(loaded: Loaded, plugins: Mapping[str, AnyPlugin]) -> None:
    """Refuse a listener that is not marked ``open`` while no stage authenticates its callers.

    *plugins* are the loaded plugins by the stage's name. Raises ``ConfigError``.
    """
    if any(hasattr(plugin, "authenticate") for plugin in plugins.values()):
        return
    for i, listener in enumerate(loaded.config.listen):
        if not listener.open:
            raise loaded.sources.error(
                ("listen", i),
                "no stage of the chain authenticates callers: add one, or let everybody in with open = true",
            )


def _secrets(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, Secret]]:
    if isinstance(value, Secret):
        yield path, value
        return
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        inner = [(encoded, getattr(value, name)) for encoded, name in names]
    elif isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    for key, item in inner:
        yield from _secrets(item, (*path, key))


def _check_listeners(config: Config, sources: Sources) -> None:
    seen: dict[tuple[str, int] | Path | PassedName, int] = {}
    names: set[str] = set()
    for i, listener in enumerate(config.listen):
        try:
            address = parse_address(listener.address)
        except ValueError as exc:
            raise sources.error(("listen", i, "address"), str(exc)) from None
        first = seen.setdefault(address, i)
        if first != i and (not isinstance(address, tuple) or address[1]):
            raise sources.error(("listen", i, "address"), f"the same address as listen[{first}]")
        if listener.name in names:  # the name is how a connection finds the rules of its door
            raise sources.error(("listen", i, "name"), "another listener has this name: write one for each")
        names.add(listener.name)
        if isinstance(address, Path) and listener.tls is not None:
            raise sources.error(("listen", i, "tls"), "a Unix socket stays on this machine: it has no TLS")
        try:
            parse_mode(listener.mode)
        except ValueError as exc:
            raise sources.error(("listen", i, "mode"), str(exc)) from None
        _check_proxy(listener, ("listen", i), sources)
        for j, origin in enumerate(listener.origins):
            if not _ORIGIN.fullmatch(origin):
                raise sources.error(
                    ("listen", i, "origins", j),
                    "expected scheme://host in lower case without a path, such as https://app.example, or *",
                )


def _check_proxy(listener: Listen, path: KeyPath, sources: Sources) -> None:
    for j, text in enumerate(listener.trusted):
        try:
            parse_network(text)
        except ValueError as exc:
            raise sources.error((*path, "trusted", j), str(exc)) from None
    if listener.proxy is not None and not listener.trusted:
        what = "whose word counts? list the balancers' addresses in trusted"
        raise sources.error((*path, "proxy"), what)
    if listener.proxy is None and listener.trusted:
        raise sources.error((*path, "trusted"), 'trusted with what? add proxy = "v2" or "forwarded"')
    if listener.proxy is not None and isinstance(listener.place, Path):
        raise sources.error((*path, "proxy"), "a Unix socket knows who connects: it has no proxy")


def _check_admin(config: Config, sources: Sources) -> None:
    if config.admin.socket is None:
        return
    try:
        path = parse_socket_path(config.admin.socket)
    except ValueError as exc:
        raise sources.error(("admin", "socket"), str(exc)) from None
    for i, listener in enumerate(config.listen):
        if listener.place == path:
            raise sources.error(("admin", "socket"), f"the same address as listen[{i}]")


def _check_upstreams(config: Config, sources: Sources) -> None:
    names: set[str] = set()
    for i, upstream in enumerate(config.upstream):
        if upstream.name in names:
            raise sources.error(("upstream", i, "name"), "another upstream has this name")
        names.add(upstream.name)
        for key, what in faults(upstream):
            raise sources.error(("upstream", i, key), what)


def _check_chain(config: Config, sources: Sources) -> None:
    counts = Counter(config.chain)
    for i, name in enumerate(config.chain):
        if not _STAGE.fullmatch(name) or name in _NO_STAGE_NAMES:
            raise sources.error(
                ("chain", i),
                "a stage's name is made of a-z, 0-9, - and _, and is not client, upstream or host",
            )
        if counts[name] > 1 and name in config.chain[:i]:
            raise sources.error(
                ("chain", i), f'{name} is named twice (name one "{name}-2" and give it use = "{name}")'
            )


def _stage(position: int, name: str, config: Config, sources: Sources) -> StageConfig:
    table = config.plugins.get(name, {})
    ours = {key: value for key, value in table.items() if key in RESERVED}
    host = convert(ours, StageTable, sources, ("plugins", name))
    return StageConfig(
        name=name,
        plugin=host.use or name,
        enabled=host.enabled,
        timeout_ms=host.timeout_ms,
        on_error=host.on_error,
        options={key: value for key, value in table.items() if key not in RESERVED},
        sources=sources,
        position=position,
    )


def _warnings(config: Config, sources: Sources, today: date) -> Iterator[str]:
    for i, upstream in enumerate(config.upstream):
        for path, what in ageing(upstream, today):
            yield sources.line(("upstream", i, *path), what)
    for name, table in config.plugins.items():
        if name not in config.chain and table.get("enabled") is not False:
            near = nearest(name, config.chain)
            yield sources.line(
                ("plugins", name), f"no stage of the chain has this name{near}: it does nothing"
            )
