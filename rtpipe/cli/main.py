"""``rtpipe <verb>``: run it.

The exit code is what the verb returns: 0 all is well, 1 it is not (one line on stderr says what), 2 wrong
usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rtpipe.api.errors import ConfigError
from rtpipe.cli import admin
from rtpipe.cli.output import complain
from rtpipe.cli.verbs import VERBS, arguments, of_plugins, own
from rtpipe.daemon.config_files import nearest

USAGE = "usage: rtpipe [--help | --version] VERB …\n"
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except SystemExit as exc:  # argparse: --help, wrong usage
        return exc.code if isinstance(exc.code, int) else 1
    except ConfigError as exc:
        complain(str(exc))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:  # trio's: interrupted within a nursery
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on; the interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _main(words: list[str]) -> int:
    if not words:
        sys.stderr.write(_help())
        return 2
    word = words[0]
    if word in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if word == "--version":
        print(f"rtpipe {version('rtpipe-gateway')}")
        return 0
    if word in VERBS:
        command = own(word)
    else:
        others = of_plugins()
        if word not in others:
            complain(f"there is no verb {word}{nearest(word, [*VERBS, *others])}: see rtpipe --help")
            return 2
        command = others[word]
    parser = argparse.ArgumentParser(prog=f"rtpipe {word}", description=command.help)
    arguments(command, parser)
    args = parser.parse_args(words[1:])
    if command.asks_daemon:
        # Found only when it is asked: not every use of such a verb needs a daemon.
        args.ask = lambda method, target: admin.ask(admin.socket_of(args), method, target)
    return command.run(args)


def _help() -> str:
    sections = {"Verbs": [own(verb) for verb in VERBS], "Verbs of plugins": of_plugins().values()}
    text = USAGE
    for title, commands in sections.items():
        lines = [f"  {command.name:<12} {command.help}\n" for command in commands]
        if lines:
            text += f"\n{title}:\n{''.join(lines)}"
    return text + "\n`rtpipe VERB --help` tells more about one.\n"


if __name__ == "__main__":
    sys.exit(main())
