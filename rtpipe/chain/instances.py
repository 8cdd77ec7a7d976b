"""Plugin instances: made from a class and its Config, started in chain order, shut down in reverse."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from rtpipe.api.errors import ConfigError, HookFailed, Refused
from rtpipe.api.facts import Fact
from rtpipe.api.metrics import Metric
from rtpipe.api.plugin import OnError, Plugin
from rtpipe.api.store import Store
from rtpipe.chain.compile import Chain, Stage
from rtpipe.chain.guard import Guard, HookCall


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What to make a stage of."""

    name: str
    kind: str
    plugin_type: type[Plugin[Any, Any]]
    config: Any
    on_error: OnError | None = None
    timeout_s: float | None = None


@dataclass(slots=True)
class Services:
    """What the process offers to plugins."""

    guard: Guard
    nursery: trio.Nursery
    store: Callable[[str], Store]
    state_dir: Path
    record: Callable[[Fact], None]
    tools_changed: Callable[[], None] = lambda: None
    judge_again: Callable[[], None] = lambda: None
    redact: Callable[[str, str], str] = lambda text, _: text
    metrics: Callable[[], Sequence[Metric]] = tuple


class PluginHost:
    """Implements ``rtpipe.Host`` for one stage."""

    def __init__(self, stage: str, on_error: OnError, services: Services) -> None:
        self.stage = stage
        self._on_error = on_error
        self._services = services
        self._tasks: set[trio.CancelScope] = set()
        self._ended = False

    @property
    def store(self) -> Store:
        return self._services.store(self.stage)

    @property
    def state_dir(self) -> Path:
        path = self._services.state_dir / self.stage
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def record(self, fact: Fact) -> None:
        self._services.record(fact)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        call = HookCall(self.stage, f"task {name}", function, True, None, self._on_error)
        self._services.nursery.start_soon(self._run, call, args)

    def tools_changed(self) -> None:
        if not self._ended:
            self._services.tools_changed()

    def judge_again(self) -> None:
        if not self._ended:
            self._services.judge_again()

    def redact(self, text: str, tool: str) -> str:
        return self._services.redact(text, tool)

    def metrics(self) -> Sequence[Metric]:
        return self._services.metrics()

    def end(self) -> None:
        """The instance is gone: so are its tasks."""
        self._ended = True
        for scope in self._tasks:
            scope.cancel()

    async def _run(self, call: HookCall, args: tuple[object, ...]) -> None:
        if self._ended:
            return
        with trio.CancelScope() as scope:
            self._tasks.add(scope)
            try:
                await self._services.guard.run(call, *args)
            finally:
                self._tasks.remove(scope)


@dataclass(slots=True, eq=False)
class Instance:
    """A plugin that was made, what it is made of by now, and what it was given."""

    spec: StageSpec
    plugin: Plugin[Any, Any]
    host: PluginHost

    def serves(self, spec: StageSpec) -> bool:
        """Whether a stage made of *spec* would be the same plugin, with the same options or taking them."""
        mine = self.spec
        if (mine.name, mine.plugin_type) != (spec.name, spec.plugin_type):
            return False
        return mine.config == spec.config or hasattr(spec.plugin_type, "config_changed")

    def become(self, spec: StageSpec) -> None:
        """Have the options of *spec*."""
        self.spec = spec
        self.plugin.config = spec.config


@dataclass(frozen=True, slots=True, eq=False)
class Lineup:
    """A chain and the instances in it, by the stage's name. Some may stand in another lineup as well."""

    chain: Chain
    instances: Mapping[str, Instance]


async def line_up(specs: Sequence[StageSpec], services: Services, before: Lineup | None = None) -> Lineup:
    """Make the instances and compile them; those of *before* that can serve are kept, with their options.

    Raises ``ConfigError`` naming the plugin that cannot be made.
    """
    kept = before.instances if before is not None else {}
    made: dict[str, Instance] = {}
    stages = []
    try:
        for spec in specs:
            on_error = spec.on_error or spec.plugin_type.on_error
            instance = kept.get(spec.name)
            if instance is None or not instance.serves(spec):
                instance = await _make(spec, on_error, services)
            made[spec.name] = instance
            stages.append(Stage(spec.name, instance.plugin, spec.kind, on_error, spec.timeout_s))
        if before is not None and tuple(stages) == before.chain.stages:
            return before
        return Lineup(Chain(stages), made)
    except BaseException:
        for name, instance in made.items():
            if instance is not kept.get(name):
                instance.host.end()
        raise


async def change(specs: Sequence[StageSpec], lineups: Sequence[Lineup], guard: Guard) -> None:
    """Give the instances in *lineups* that can serve stages of *specs* the options of these, all or none.

    Raises ``ConfigError`` naming the plugin that cannot take them.
    """
    wanted = {spec.name: spec for spec in specs}
    changed: list[tuple[HookCall, Instance, StageSpec]] = []
    try:
        for lineup in lineups:
            for call in lineup.chain.calls("config_changed"):
                instance, spec = lineup.instances[call.stage], wanted.get(call.stage)
                if spec is None or not instance.serves(spec) or instance.spec.config == spec.config:
                    continue
                before = instance.spec
                changed.append((call, instance, before))
                instance.become(spec)
                await guard.call(call, before.config)
    except BaseException as exc:
        with trio.CancelScope(shield=True):
            for undo, instance, before in reversed(changed):
                not_taken = instance.spec
                instance.become(before)
                await guard.run(undo, not_taken.config)
        if isinstance(exc, HookFailed | Refused):
            raise ConfigError(f"plugin {call.stage} does not take its new options: {_why(exc)}") from None
        raise


async def _make(spec: StageSpec, on_error: OnError, services: Services) -> Instance:
    host = PluginHost(spec.name, on_error, services)
    make = HookCall(spec.name, "__init__", spec.plugin_type, False, None, on_error)
    try:
        return Instance(spec, await services.guard.call(make, spec.config, host), host)
    except (HookFailed, Refused) as exc:
        host.end()
        raise ConfigError(f"plugin {spec.name} cannot be made: {_why(exc)}") from None


async def build_chain(specs: Sequence[StageSpec], services: Services) -> Chain:
    """The chain of a lineup that nothing replaces. Raises ``ConfigError`` as ``line_up``."""
    return (await line_up(specs, services)).chain


async def start(chain: Chain, guard: Guard, only: Collection[str] | None = None) -> None:
    """Call ``startup`` in chain order, of all stages or of *only* some. Raises ``ConfigError`` naming the
    plugin that failed, after shutting down those that had started."""
    calls = {call.stage: call for call in chain.calls("startup")}
    started: list[str] = []
    try:
        for stage in chain.stages:
            if only is not None and stage.name not in only:
                continue
            if (call := calls.get(stage.name)) is not None:
                await guard.call(call)
            started.append(stage.name)
    except BaseException as exc:
        await stop(chain, guard, started)
        if isinstance(exc, HookFailed | Refused):
            raise ConfigError(f"plugin {stage.name} does not start: {_why(exc)}") from None
        raise


async def stop(chain: Chain, guard: Guard, only: Collection[str] | None = None) -> None:
    """Call ``shutdown`` in reverse chain order, of all stages or of *only* some. Shielded; every hook has
    its own limit."""
    with trio.CancelScope(shield=True):
        for call in reversed(chain.calls("shutdown")):
            if only is None or call.stage in only:
                await guard.run(call)


def _why(exc: HookFailed | Refused) -> str:
    return exc.why if isinstance(exc, HookFailed) else exc.message
