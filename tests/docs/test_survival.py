"""The tables of what becomes of which fault: each row names tests that there are, or says why none."""

import re

import pytest

from tests.docs.pages import ROOT
from tests.faults.table import ROWS

CASES = {row.case for row in ROWS}


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("README.md", "What survives which fault"),
        ("tests/faults/README.md", "What becomes of which case"),
    ],
)
def test_each_row_names_a_test_that_there_is(page: str, heading: str) -> None:
    table = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        shown_by = row.split(" | ")[-1]
        tests = re.findall(r"`((?:tests|plugins)/[\w/-]+\.py)(?:::(test_\w+))?`", shown_by)
        cases = re.findall(r"`make faults: ([^`]+)`", shown_by)
        assert tests or cases or "not here: " in shown_by, row
        assert set(cases) <= CASES, row
        for path, name in tests:
            assert f"def {name or 'test_'}" in (ROOT / path).read_text(), row
