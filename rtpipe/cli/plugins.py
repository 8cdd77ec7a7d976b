"""``rtpipe plugins``: what is in the chain, what is installed, and a switch for each stage."""

import argparse
from pathlib import Path

from rtpipe.api.errors import ConfigError
from rtpipe.chain.discovery import hooks_of, installed
from rtpipe.cli import admin, options, reload
from rtpipe.cli.output import complain, table
from rtpipe.daemon.config_load import Loaded, StageConfig, load
from rtpipe.daemon.drop_in import switch

NAME = "plugins"
HELP = "list the stages and the installed plugins; enable or disable a stage"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(act=_list)
    options.config(parser)
    verbs = parser.add_subparsers(metavar="list | enable | disable")
    each = verbs.add_parser("list", help="the stages in order, then installed plugins that no stage uses")
    options.config(each, argparse.SUPPRESS)
    for verb, enabled in (("enable", True), ("disable", False)):
        each = verbs.add_parser(verb, help=f"{verb} a stage, in the running daemon too")
        each.add_argument("stage", metavar="NAME", help="a name in the chain")
        options.config(each, argparse.SUPPRESS)
        each.set_defaults(act=_switch, enabled=enabled)


def run(args: argparse.Namespace) -> int:
    code: int = args.act(args, load(args.config))
    return code


def _list(_args: argparse.Namespace, loaded: Loaded) -> int:
    origins = {plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in installed()}
    rows = [("STAGE", "PLUGIN", "FROM", "ENABLED", "ON ERROR", "HOOKS")]
    failures = 0
    stages = sorted([*loaded.stages, *loaded.disabled], key=lambda stage: stage.position)
    for stage in stages:
        on_error, hooks = _about(stage)
        failures += on_error is None
        rows.append(
            (
                stage.name,
                stage.plugin,
                origins.get(stage.plugin, "not installed"),
                "yes" if stage.enabled else "no",
                on_error or "?",
                hooks,
            )
        )
    used = {stage.plugin for stage in stages}
    rows += [("–", name, origin, "–", "–", "") for name, origin in origins.items() if name not in used]
    table(rows)
    return 1 if failures else 0


def _about(stage: StageConfig) -> tuple[str | None, str]:
    """What the stage does on errors, and its hooks; ``None`` when its plugin cannot be loaded."""
    try:
        plugin = stage.load_plugin()
    except ConfigError as exc:
        complain(str(exc))
        return None, ""
    return stage.on_error or plugin.on_error, "; ".join(hooks_of(plugin))


def _switch(args: argparse.Namespace, loaded: Loaded) -> int:
    written = switch(loaded, args.stage, args.enabled)
    state = "enabled" if args.enabled else "disabled"
    if written is None:
        print(f"{args.stage} is {state} already; nothing written")
        return 0
    try:
        report = _reload(loaded)
    except ConfigError:
        print(f"wrote {written}: {args.stage} is {state}, but not in the running daemon")
        raise
    if report is None:
        print(f"wrote {written}: {args.stage} is {state} from the next start of rtpipe on")
        return 0
    print(f"wrote {written}: {args.stage} is {state}")
    for line in reload.told(report):
        print(line)
    return 0


def _reload(loaded: Loaded) -> admin.Json | None:
    """Have the running daemon read what was written; ``None`` when there is none. Raises ``ConfigError``."""
    if loaded.config.admin.socket is None:
        return None
    try:
        return admin.ask(Path(loaded.config.admin.socket), "POST", "/reload", reload.LIMIT_S)
    except admin.NoDaemon:
        return None
