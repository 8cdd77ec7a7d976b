"""Plugin instances: made from a class and its Config, started in chain order, shut down in reverse."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from rtpipe.api.errors import ConfigError, HookFailed, Refused
from rtpipe.api.facts import Fact
from rtpipe.api.plugin import OnError, Plugin
from rtpipe.api.store import Store
from rtpipe.chain.compile import Chain, Stage
from rtpipe.chain.guard import Guard, HookCall

log = logging.getLogger("rtpipe.chain")


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


class PluginHost:
    """Implements ``rtpipe.Host`` for one stage."""

    def __init__(self, stage: str, on_error: OnError, services: Services) -> None:
        self.stage = stage
        self._on_error = on_error
        self._services = services

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
        self._services.nursery.start_soon(self._services.guard.run, call, *args)


async def build_chain(specs: Sequence[StageSpec], services: Services) -> Chain:
    """Make the instances and compile them. Raises ``ConfigError`` naming the plugin that cannot be made."""
    stages = []
    for spec in specs:
        on_error = spec.on_error or spec.plugin_type.on_error
        host = PluginHost(spec.name, on_error, services)
        make = HookCall(spec.name, "__init__", spec.plugin_type, False, None, on_error)
        try:
            plugin = await services.guard.call(make, spec.config, host)
        except (HookFailed, Refused) as exc:
            raise ConfigError(f"plugin {spec.name} cannot be made: {_why(exc)}") from None
        stages.append(Stage(spec.name, plugin, spec.kind, on_error, spec.timeout_s))
    return Chain(stages)


async def start(chain: Chain, guard: Guard) -> None:
    """Call ``startup`` in chain order. Raises ``ConfigError`` naming the plugin that failed, after shutting
    down those that had started."""
    calls = {call.stage: call for call in chain.calls("startup")}
    started: list[str] = []
    try:
        for stage in chain.stages:
            if (call := calls.get(stage.name)) is not None:
                await guard.call(call)
            started.append(stage.name)
    except BaseException as exc:
        await stop(chain, guard, started)
        if isinstance(exc, HookFailed | Refused):
            raise ConfigError(f"plugin {stage.name} does not start: {_why(exc)}") from None
        raise


async def stop(chain: Chain, guard: Guard, started: Sequence[str] | None = None) -> None:
    """Call ``shutdown`` in reverse chain order, shielded; every hook has its own limit."""
    with trio.CancelScope(shield=True):
        for call in reversed(chain.calls("shutdown")):
            if started is None or call.stage in started:
                await guard.run(call)


def _why(exc: HookFailed | Refused) -> str:
    return exc.why if isinstance(exc, HookFailed) else exc.message
