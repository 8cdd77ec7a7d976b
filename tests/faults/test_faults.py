"""The short form of ``make faults``: what is done live, and that the rest stands for something."""

from pathlib import Path

import pytest
import trio

from tests.daemon.kit import KEY_VARIABLE, UPSTREAM_KEY, config, running, scripted
from tests.faults.__main__ import CASE_S
from tests.faults.cases import CONFIG, Scene
from tests.faults.machine import why_not_here
from tests.faults.table import ROWS

ROOT = Path(__file__).parents[2]


async def test_what_is_done_to_a_daemon(tmp_path, monkeypatch):
    """One after the other to the same daemon: none leaves anything behind that harms the next."""
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)
    file = tmp_path / "rtpipe.toml"
    async with scripted() as model:
        file.write_text(config(tmp_path / "state", model.url, listen="metrics = true", more=CONFIG))
        async with running(file) as gateway:
            for row in ROWS:
                if row.live is not None:
                    with trio.fail_after(CASE_S):
                        assert await row.live(Scene(gateway, model)), row.case


@pytest.mark.parametrize("row", [row for row in ROWS if row.apart], ids=lambda row: row.case)
def test_what_is_done_to_a_daemon_of_its_own(row, monkeypatch):
    if row.is_long:
        pytest.skip("it waits for most of a minute: make faults")
    monkeypatch.setenv(KEY_VARIABLE, UPSTREAM_KEY)

    async def seen():
        with trio.fail_after(CASE_S):
            return await row.apart()

    try:
        assert trio.run(seen)
    except Exception as exc:
        if not (why := why_not_here(exc)):
            raise
        pytest.skip(why)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_every_row_is_seen_or_says_why_not(row):
    assert row.live or row.apart or row.tests or row.missing
    for test in row.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text("utf-8")
        assert not name or f"def {name}(" in text, test
