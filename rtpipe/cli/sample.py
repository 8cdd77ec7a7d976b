"""``rtpipe sample``: print a configuration to start from, or its schema."""

import argparse
import sys

from rtpipe.api.errors import ConfigError
from rtpipe.chain.discovery import AnyPlugin, installed, load_plugin
from rtpipe.cli.output import complain
from rtpipe.daemon.sample import sample
from rtpipe.daemon.schema import schema_text

NAME = "sample"
HELP = "print an annotated configuration to start from"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema for editors instead of the sample"
    )


def run(args: argparse.Namespace) -> int:
    plugins = _installed_plugins()
    sys.stdout.write(schema_text(plugins) if args.schema else sample(plugins))
    return 0


def _installed_plugins() -> dict[str, AnyPlugin]:
    """All that can be loaded; the others cost one line each."""
    found = {}
    for plugin in installed():
        try:
            found[plugin.name] = load_plugin(plugin.name)
        except ConfigError as exc:
            complain(f"warning: {exc}")
    return found
