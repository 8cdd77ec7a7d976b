"""The README's table of what survives which fault: each row has a test."""

import re

from tests.docs.pages import ROOT


def test_each_row_names_a_test_that_there_is() -> None:
    page = (ROOT / "README.md").read_text()
    table = page.partition("\n## What survives which fault\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        found = re.search(r"\| `(tests/[a-z_/]+\.py)(?:::(test_[a-z_0-9]+))?` \|$", row)
        assert found, row
        path, name = found.groups()
        assert (name or "test_") in (ROOT / path).read_text(), row
