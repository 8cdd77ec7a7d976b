"""``rtpipe completion``: what a shell needs to complete verbs, options and files."""

import argparse
from pathlib import Path

import shtab

from rtpipe.cli import verbs

NAME = "completion"
HELP = "print what makes a shell complete the verbs, those of plugins too, and their options"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help="for which shell; print it again after an upgrade"
    )


def run(args: argparse.Namespace) -> int:
    parser = _of_all()
    _mark_files(parser)
    print(shtab.complete(parser, args.shell))
    return 0


def _of_all() -> argparse.ArgumentParser:
    """One parser of every verb."""
    parser = argparse.ArgumentParser(prog="rtpipe")
    parser.add_argument("--version", action="store_true", help="print which rtpipe this is")
    added = parser.add_subparsers(metavar="VERB")
    for command in (*map(verbs.own, verbs.VERBS), *verbs.of_plugins().values()):
        verbs.arguments(command, added.add_parser(command.name, help=command.help))
    return parser


def _mark_files(parser: argparse.ArgumentParser) -> None:
    """Have arguments that are paths completed with files."""
    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _mark_files(each)
