"""The verbs there are: ours, and those of the installed plugins.

A verb of ours is a module of this package with NAME, HELP, arguments(parser) and run(args).
"""

import argparse
import importlib

from rtpipe.api.errors import ConfigError
from rtpipe.api.plugin import Command
from rtpipe.chain.discovery import installed, load_plugin
from rtpipe.cli import admin
from rtpipe.cli.output import complain

_RUNNING = ("run", "check", "reload", "drain", "sessions", "forget", "tail", "record", "replay", "plugins")
VERBS = (*_RUNNING, "sample", "sim", "demo", "dev-cert", "completion")


def own(verb: str) -> Command:
    """A verb of VERBS."""
    module = importlib.import_module(f"rtpipe.cli.{verb.replace('-', '_')}")
    return Command(module.NAME, module.HELP, module.arguments, module.run)


def of_plugins() -> dict[str, Command]:
    """The verbs of the installed plugins. One that fails, or takes a name twice, costs one line."""
    found: dict[str, Command] = {}
    for plugin in installed():
        try:
            commands = load_plugin(plugin.name).commands()
        except ConfigError as exc:
            complain(f"warning: {exc}")
            continue
        except Exception as exc:  # noqa: BLE001 - a plugin may raise anything
            complain(f"warning: commands of plugin {plugin.name}: {type(exc).__name__}: {exc}")
            continue
        for command in commands:
            if command.name in VERBS or command.name in found:
                complain(f"warning: verb {command.name} of plugin {plugin.name} is taken already")
            else:
                found[command.name] = command
    return found


def arguments(command: Command, parser: argparse.ArgumentParser) -> None:
    """Add to *parser* what *command* takes."""
    command.arguments(parser)
    if command.asks_daemon:
        admin.arguments(parser)
