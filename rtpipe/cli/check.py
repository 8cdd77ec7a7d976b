"""``rtpipe check``: read the configuration as the daemon would, and say what it means."""

import argparse
from typing import Any

from rtpipe.api.errors import ConfigError
from rtpipe.chain.discovery import AnyPlugin
from rtpipe.cli import options
from rtpipe.cli.output import complain
from rtpipe.daemon.config_load import Loaded, check_doors, check_secrets, load

NAME = "check"
HELP = "read configuration, plugins and secrets as the daemon would, and print the chain"


def arguments(parser: argparse.ArgumentParser) -> None:
    options.config(parser)


def run(args: argparse.Namespace) -> int:
    loaded = load(args.config)
    for warning in loaded.warnings:
        complain(f"warning: {warning}")
    from rtpipe.daemon.listeners import check_files
    from rtpipe.daemon.sealing import check_persist

    plugins: dict[str, AnyPlugin] = {}
    configs: dict[str, Any] = {}
    mistakes = []
    for stage in loaded.stages:
        try:
            plugins[stage.name] = stage.load_plugin()
            configs[stage.name] = stage.plugin_config(plugins[stage.name].config_type)
        except ConfigError as exc:
            mistakes.append(exc)
    try:
        check_secrets(loaded, configs)
        check_persist(loaded, plugins, configs)
        check_files(loaded)
        if len(plugins) == len(loaded.stages):  # the one that is missing may be who authenticates
            check_doors(loaded, plugins)
    except ConfigError as exc:
        mistakes.append(exc)
    for mistake in mistakes:
        complain(str(mistake))
    if mistakes:
        return 1
    rows, warnings = _look_at_chain(loaded, plugins, configs)
    for warning in warnings:
        complain(f"warning: {warning}")
    _print(loaded, rows)
    return 0


def _look_at_chain(
    loaded: Loaded, plugins: dict[str, AnyPlugin], configs: dict[str, Any]
) -> tuple[list[tuple[str, str, list[str]]], list[str]]:
    """(direction, event type, stages that want it) of the chain, and what its stages warn of.

    Raises ``ConfigError``.
    """
    import trio

    from rtpipe.chain.advice import warnings_of
    from rtpipe.chain.compile import Chain, describe
    from rtpipe.chain.guard import Guard
    from rtpipe.chain.instances import Services, StageSpec, build_chain

    specs = [
        StageSpec(stage.name, stage.plugin, plugins[stage.name], configs[stage.name])
        for stage in loaded.stages
    ]

    def no_store(stage: str) -> Any:
        raise ConfigError(f"plugin {stage} uses its store before it is started")

    async def build() -> tuple[Chain, list[str]] | ConfigError:
        guard = Guard()
        async with trio.open_nursery() as nursery:
            services = Services(guard, nursery, no_store, loaded.config.state_path, lambda _: None)
            result: tuple[Chain, list[str]] | ConfigError
            try:
                chain = await build_chain(specs, services)
                result = chain, await warnings_of(chain, guard)
            except ConfigError as exc:
                result = exc
            nursery.cancel_scope.cancel()
        return result

    built = trio.run(build)
    if isinstance(built, ConfigError):
        raise loaded.sources.error(("chain",), str(built))
    chain, warnings = built
    return describe(chain), warnings


def _print(loaded: Loaded, rows: list[tuple[str, str, list[str]]]) -> None:
    config = loaded.config
    print(f"{loaded.path}: ok")
    print(f"chain: {' · '.join(stage.name for stage in loaded.stages) or '(no stages)'}")
    if loaded.disabled:
        print(f"switched off: {' · '.join(stage.name for stage in loaded.disabled)}")
    for listener in config.listen:
        print(f"listen: {listener.url}{' (open to everybody)' if listener.open else ''}")
    for upstream in config.upstream:
        print(f"upstream: {upstream.name}: {upstream.endpoint}, model {upstream.default_model}")
    width = max((len(kind) for _, kind, _ in rows), default=0)
    for direction in dict.fromkeys(row[0] for row in rows):
        print(f"{direction} events, in walking order (* is every other type):")
        for where, kind, stages in rows:
            if where == direction:
                print(f"  {kind:<{width}}  {' → '.join(stages)}")
