"""The parts of a page that tests run: fenced blocks behind a comment such as ``<!-- tested: client -->``."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def block(page: str, mark: str) -> str:
    """The content of the fenced block behind the comment *mark*."""
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(rf"(?ms)^<!-- {re.escape(mark)} -->\n+```\w*\n(.*?)^```$", text)
    assert len(found) == 1, f"{page}: {len(found)} blocks behind <!-- {mark} -->"
    return found[0]


def files(page: str) -> dict[str, str]:
    """The blocks that stand for files, by name: those behind ``<!-- file: NAME -->``."""
    names = re.findall(r"(?m)^<!-- file: (\S+) -->$", (ROOT / page).read_text("utf-8"))
    return {name: block(page, f"file: {name}") for name in names}
