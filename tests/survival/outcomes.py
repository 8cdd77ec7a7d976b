"""What became of cut calls, as a table."""

from dataclasses import dataclass, field

HEAD = ("client", "leg", "cut", "boundaries", "same", "losses named", "FAILED")


@dataclass
class Outcome:
    """The calls of one client that were cut in one way."""

    client: str
    leg: str
    kind: str
    of: int
    """How many boundaries there are."""
    same: int = 0
    named: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Why, by boundary."""
    losses: set[str] = field(default_factory=set)

    @property
    def tried(self) -> int:
        return self.same + self.named + len(self.failed)


def failed(outcomes: list[Outcome]) -> bool:
    """Whether a call did not go on as it should."""
    return any(outcome.failed or not outcome.tried for outcome in outcomes)


def table(outcomes: list[Outcome]) -> str:
    """One line for each, and below them what was named as lost, and why what failed did."""
    cells = [HEAD]
    for each in outcomes:
        tried = f"{each.tried} of {each.of}"
        numbers = (tried, str(each.same), str(each.named), str(len(each.failed)))
        cells.append((each.client, each.leg, each.kind, *numbers))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ""
    for line in cells:
        text += "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
    losses = sorted(set().union(*(each.losses for each in outcomes)))
    text += "".join(f"named: {loss}\n" for loss in losses)
    for each in outcomes:
        for boundary, why in sorted(each.failed.items()):
            text += f"FAILED {each.client}, {each.leg} cut by {each.kind} behind event {boundary}: {why}\n"
    return text
