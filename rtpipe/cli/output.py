"""What verbs say besides their output."""

import sys

from rtpipe.daemon.config_files import one_line


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"rtpipe: {one_line(text)}", file=sys.stderr)
