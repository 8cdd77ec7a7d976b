"""What verbs say besides their output."""

import sys
from collections.abc import Sequence

from rtpipe.daemon.config_files import one_line


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"rtpipe: {one_line(text)}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of cells on stdout, in columns; printable, whatever is in them."""
    printable = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*printable, strict=True)]
    for row in printable:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
