"""What the clients did, as a table."""

from collections.abc import Iterable
from dataclasses import dataclass, field

HEAD = ("client", "version", "transport", "ok", "failed")


@dataclass
class Row:
    """One client over one transport."""

    client: str
    version: str
    transport: str
    ok: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by turn."""

    def read(self, report: str, expected: Iterable[str], otherwise: str = "not reached") -> None:
        """Take a client's own lines: ``ok TURN`` or ``failed TURN: WHY``. What is not in them has failed."""
        for line in report.splitlines():
            verdict, _, rest = line.partition(" ")
            if verdict == "ok":
                self.ok.append(rest)
            elif verdict == "failed":
                turn, _, why = rest.partition(": ")
                self.failed[turn] = why
        for turn in expected:
            if turn not in self.ok and turn not in self.failed:
                self.failed[turn] = otherwise

    def fail(self, turn: str, why: str) -> None:
        """Whatever it said itself."""
        if turn in self.ok:
            self.ok.remove(turn)
        self.failed[turn] = why


def table(rows: list[Row]) -> str:
    """The rows with aligned columns, and below them why what failed did."""
    cells = [HEAD]
    for row in rows:
        ok = f"{len(row.ok)} ({', '.join(row.ok)})"
        cells.append((row.client, row.version, row.transport, ok, str(len(row.failed))))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ""
    for line in cells:
        text += "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
    for row in rows:
        for turn, why in row.failed.items():
            text += f"FAILED {row.client} over {row.transport}, {turn}: {why}\n"
    return text
