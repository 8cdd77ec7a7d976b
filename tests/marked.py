"""The marks of the secrets in tests: what shows one to an operator, or has it on the disk, leaks it."""

import re
import tomllib
from contextlib import suppress
from pathlib import Path

CARD = "4111 1111 1111 1111"
MARKS = re.compile(
    rb"(?<![A-Za-z])sk-[A-Za-z]{2}[\w-]*"  # every key in the tests begins so
    rb"|\bek_[\w-]{20,}"  # a client secret
    rb"|\beyJ[\w-]{10,}\.[\w-]*"  # a token of an identity provider
    rb"|MARKED"
    rb"|4111[ -]?1111[ -]?1111[ -]?1111"
)


def marked_in(said: str | bytes) -> list[str]:
    """The secrets in it."""
    data = said.encode(errors="replace") if isinstance(said, str) else said
    return [found.decode() for found in MARKS.findall(data)]


def leaked(file: Path, said: str) -> list[str]:
    """The secrets in what the daemon of that configuration said, and in all that it has written."""
    found = [f"{each} in its output" for each in marked_in(said)]
    try:
        config = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return found
    written = [
        *Path(config.get("state_dir", "/nowhere")).rglob("*"),
        Path(config.get("audit", {}).get("file", "/")),
    ]
    for path in written:
        with suppress(FileNotFoundError, IsADirectoryError):  # or another daemon removes its log just now
            found += [f"{each} in {path}" for each in marked_in(path.read_bytes())]
    return found
