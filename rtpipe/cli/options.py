"""Arguments that several verbs share."""

import argparse
from pathlib import Path

from rtpipe.daemon.config_files import ENVIRONMENT, SYSTEM_FILE


def config(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """``--config``, as ``args.config``: a path or ``None``."""
    parser.add_argument(
        "--config",
        type=Path,
        default=default,
        metavar="FILE",
        help=f"the configuration (default: ${ENVIRONMENT}, else {SYSTEM_FILE})",
    )
