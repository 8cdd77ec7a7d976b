"""From configured plugins to a chain: validated by pluggy, compiled to links, never changed afterwards."""

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from rtpipe.api.errors import ConfigError
from rtpipe.api.event import CLIENT, HOST, UPSTREAM_ORIGIN
from rtpipe.api.hooks import LIMITS, PROJECT, EventHook, Hooks
from rtpipe.api.plugin import OnError, Plugin
from rtpipe.chain.guard import HookCall, is_async
from rtpipe.protocol.beta import TRANSCRIPTION_UPDATE
from rtpipe.protocol.catalogue import CLIENT_TYPES, DOWNSTREAM, SERVER_TYPES, UPSTREAM, Direction

log = logging.getLogger("rtpipe.chain")

EVENT_HOOKS: dict[str, Direction] = {"client_event": UPSTREAM, "server_event": DOWNSTREAM}
_HOOK_NAMES = frozenset(LIMITS)
_CATALOGUE = {UPSTREAM: CLIENT_TYPES, DOWNSTREAM: SERVER_TYPES}


@dataclass(frozen=True, slots=True)
class Stage:
    """A plugin's place in the chain."""

    name: str
    plugin: Plugin[Any, Any]
    kind: str
    """The plugin's own name: what ``before`` and ``after`` facts of others speak of."""
    on_error: OnError
    timeout_s: float | None = None
    """The operator's limit for this stage's event hooks."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one stage does with one event type: watch it, decide about it, or both."""

    stage: Stage
    watch: HookCall | None
    decide: HookCall | None


Links = tuple[Link | None, ...]
"""One place for every stage, in walking order; an empty tuple when no stage wants the type."""


class Chain:
    """The compiled list of stages. Immutable: a change of configuration makes a new one."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Raises ``ConfigError`` naming the plugin for everything that cannot work."""
        self.stages = tuple(stages)
        _check_names(self.stages)
        _check_order(self.stages)
        by_plugin = {id(stage.plugin): stage for stage in self.stages}
        manager = _Manager(by_plugin)
        manager.add_hookspecs(Hooks)
        for stage in self.stages:
            try:
                manager.register(stage.plugin, name=stage.name)
            except pluggy.PluginValidationError as exc:
                raise ConfigError(f"plugin {stage.name}: {_one_line(exc)}") from None
        self._calls = {
            hook: self._collect(manager, hook, by_plugin) for hook in _HOOK_NAMES - set(EVENT_HOOKS)
        }
        self._implementations = {
            hook: _event_implementations(manager, hook, by_plugin) for hook in EVENT_HOOKS
        }
        self._tables = {direction: self._compile(hook) for hook, direction in EVENT_HOOKS.items()}

    def __len__(self) -> int:
        return len(self.stages)

    def calls(self, hook: str) -> tuple[HookCall, ...]:
        """The implementations of a hook that is no event hook, in chain order."""
        return self._calls[hook]

    def links(self, direction: Direction, kind: str) -> Links:
        """Who wants events of this type, in walking order. Unknown types go to catch-all hooks."""
        table, catch_all = self._tables[direction]
        return table.get(kind, catch_all)

    def step_of(self, stage: str, direction: Direction) -> int:
        """Where on a walk a stage stands: client first upstream, upstream first downstream."""
        index = next(i for i, s in enumerate(self.stages) if s.name == stage)
        return index if direction == UPSTREAM else len(self.stages) - 1 - index

    def walk_order(self, direction: Direction) -> tuple[Stage, ...]:
        """The stages as an event of this direction meets them."""
        return self.stages if direction == UPSTREAM else self.stages[::-1]

    def _collect(
        self, manager: pluggy.PluginManager, hook: str, by_plugin: dict[int, Stage]
    ) -> tuple[HookCall, ...]:
        found = {by_plugin[id(i.plugin)].name: i for i in getattr(manager.hook, hook).get_hookimpls()}
        return tuple(
            _hook_call(stage, hook, found[stage.name], LIMITS[hook])
            for stage in self.stages
            if stage.name in found
        )

    def _compile(self, hook: str) -> tuple[dict[str, Links], Links]:
        direction = EVENT_HOOKS[hook]
        implementations = self._implementations[hook]
        kinds = {kind for each in implementations.values() for marker, _ in each for kind in marker.types}
        table = {kind: self._links(direction, hook, kind) for kind in kinds}
        return table, self._links(direction, hook, None)

    def _links(self, direction: Direction, hook: str, kind: str | None) -> Links:
        links: list[Link | None] = []
        for stage in self.walk_order(direction):
            watch = self._pick(stage, hook, kind, watch=True)
            decide = self._pick(stage, hook, kind, watch=False)
            links.append(Link(stage, watch, decide) if watch or decide else None)
        return tuple(links) if any(links) else ()

    def _pick(self, stage: Stage, hook: str, kind: str | None, *, watch: bool) -> HookCall | None:
        matching = [
            implementation
            for marker, implementation in self._implementations[hook].get(stage.name, ())
            if marker.watch == watch and (not marker.types or kind in marker.types)
        ]
        if len(matching) > 1:
            names = " and ".join(i.function.__name__ for i in matching)
            raise ConfigError(f"plugin {stage.name}: {names} both handle {kind or 'every event'}: merge them")
        if not matching:
            return None
        limit = stage.timeout_s if stage.timeout_s is not None else LIMITS[hook]
        return _hook_call(stage, hook, matching[0], limit)


def describe(chain: Chain) -> list[tuple[str, str, list[str]]]:
    """(direction, event type, stages in walking order) for every type some stage wants; "*": all others."""
    rows: list[tuple[str, str, list[str]]] = []
    for direction, (table, catch_all) in chain._tables.items():
        for kind, links in [*sorted(table.items()), ("*", catch_all)]:
            names = [link.stage.name for link in links if link is not None]
            if names:
                rows.append((direction, kind, names))
    return rows


class _Manager(pluggy.PluginManager):
    """Finds hooks by name and event hooks by marker; order and wrapping belong to the configuration."""

    def __init__(self, by_plugin: Mapping[int, Stage]) -> None:
        super().__init__(PROJECT)
        self._stages = by_plugin

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        attribute = inspect.getattr_static(type(plugin), name, None)
        # Nothing but methods is looked at: a property would run here.
        if name.startswith("__") or not inspect.isroutine(attribute):
            return None
        stage = self._stages[id(plugin)].name
        options = super().parse_hookimpl_opts(plugin, name)
        if options is not None:
            asked = [key for key in ("tryfirst", "trylast", "wrapper", "hookwrapper") if options.get(key)]
            if asked:
                raise ConfigError(f"plugin {stage}: {name}: {asked[0]} is not for plugins: order the chain")
            return options
        marker = getattr(attribute, "rtpipe_event_hook", None)
        if isinstance(marker, EventHook):
            _warn_of_unknown_types(stage, name, marker)
            return {"specname": marker.hook}
        if name in EVENT_HOOKS:
            raise ConfigError(f"plugin {stage}: {name}: mark event hooks with @on_client or @on_server")
        if name in _HOOK_NAMES:
            return {}
        _warn_of_misspelt_hook(stage, name)
        return None


def _warn_of_unknown_types(stage: str, name: str, marker: EventHook) -> None:
    known = _CATALOGUE[EVENT_HOOKS[marker.hook]] | {TRANSCRIPTION_UPDATE}  # a name some servers still take
    for kind in marker.types:
        if kind not in known:
            near = difflib.get_close_matches(kind, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            log.warning("plugin %s: %s: %s is no known event type%s", stage, name, ascii(kind), hint)


def _warn_of_misspelt_hook(stage: str, name: str) -> None:
    if name.startswith("_") or hasattr(Plugin, name):
        return
    if near := difflib.get_close_matches(name, _HOOK_NAMES, 1, cutoff=0.85):
        log.warning("plugin %s: %s is no hook (did you mean %s?)", stage, name, near[0])


def _event_implementations(
    manager: pluggy.PluginManager, hook: str, by_plugin: dict[int, Stage]
) -> dict[str, list[tuple[EventHook, Any]]]:
    found: dict[str, list[tuple[EventHook, Any]]] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        stage = by_plugin[id(implementation.plugin)]
        marker = implementation.function.rtpipe_event_hook
        found.setdefault(stage.name, []).append((marker, implementation))
    return found


def _hook_call(stage: Stage, hook: str, implementation: Any, limit_s: float | None) -> HookCall:
    wanted = implementation.argnames
    offered = [p for p in inspect.signature(getattr(Hooks, hook)).parameters if p != "self"]
    function = _adapt(implementation.function, wanted, offered)
    return HookCall(
        stage=stage.name,
        hook=implementation.function.__name__ if hook in EVENT_HOOKS else hook,
        function=function,
        is_async=is_async(implementation.function),
        limit_s=limit_s,
        on_error=stage.on_error,
    )


def _adapt(function: Callable[..., Any], wanted: Iterable[str], offered: list[str]) -> Callable[..., Any]:
    """Call *function* with only the arguments it names."""
    places = [offered.index(name) for name in wanted]
    if places == list(range(len(offered))):
        return function
    return lambda *args: function(*[args[place] for place in places])


def _check_names(stages: Sequence[Stage]) -> None:
    taken: set[str] = set()
    for stage in stages:
        if stage.name in taken:
            raise ConfigError(f"chain: {stage.name} stands twice in the list: give each stage its own name")
        if stage.name in (CLIENT, UPSTREAM_ORIGIN, HOST):
            # An event's origin is a stage's name or one of these.
            raise ConfigError(f"chain: {stage.name} is no name for a stage: choose another")
        taken.add(stage.name)


def _check_order(stages: Sequence[Stage]) -> None:
    for i, stage in enumerate(stages):
        for other in stages[:i]:
            if other.kind in stage.plugin.before:
                raise ConfigError(f"chain: {stage.name} must come before {other.name}: move it in the list")
        for other in stages[i + 1 :]:
            if other.kind in stage.plugin.after:
                raise ConfigError(f"chain: {stage.name} must come after {other.name}: move it in the list")


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())
