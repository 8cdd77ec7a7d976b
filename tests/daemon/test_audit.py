"""The audit log: what is in it, who may read it, and that a broken disk harms nobody."""

import json
import logging
import resource
import stat

import pytest
import trio

from rtpipe.api import facts
from rtpipe.api.errors import ConfigError
from rtpipe.daemon.audit import QUEUE_LINES, Audit

REFUSED = facts.Refused(stage="host", code="c", message="\x1b[2J\nforged", address="1.2.3.4:5")


async def test_lines(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        audit.fact(REFUSED)
        audit.fact(facts.TurnStarted(item_id="i", by="vad"))
        await trio.testing.wait_all_tasks_blocked()
        audit.fact(facts.Operated(action="kill", by="uid 0", what="sess_1"))
        nursery.cancel_scope.cancel()
    lines = path.read_text().splitlines()
    assert all(line.isprintable() for line in lines)
    refused, operated = map(json.loads, lines)
    assert (refused["fact"], refused["code"], refused["address"]) == ("Refused", "c", "1.2.3.4:5")
    assert (operated["action"], operated["by"], operated["what"]) == ("kill", "uid 0", "sess_1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written(tmp_path, caplog):
    folder = tmp_path / "there"
    folder.mkdir()
    path = folder / "audit.jsonl"
    audit = Audit(str(path))
    path.unlink()
    folder.rmdir()
    caplog.set_level(logging.ERROR)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for _ in range(3):
            audit.fact(REFUSED)
            with trio.fail_after(10):
                while audit._receive.statistics().current_buffer_used:
                    await trio.lowlevel.checkpoint()
        while not caplog.records:
            await trio.lowlevel.checkpoint()
        folder.mkdir()
        nursery.cancel_scope.cancel()
    assert len(caplog.records) == 1
    assert "losing lines: No such file or directory" in caplog.text


async def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    """The disk is full in mid line; then there is room again."""
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path))
    await audit._write([b'{"fact":"first"}\n'])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, limits[1]))
    try:
        await audit._write([b'{"fact":"second"}\n'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await audit._write([b'{"fact":"third"}\n'])
    first, second, lost, third = path.read_text().splitlines()
    assert second == '{"fact":'
    assert [json.loads(line)["fact"] for line in (first, lost, third)] == ["first", "Lost", "third"]


def test_what_waits_is_bounded(tmp_path):
    audit = Audit(str(tmp_path / "a"))
    for _ in range(QUEUE_LINES + 5):
        audit.fact(REFUSED)
    assert audit._lost == 5


def test_no_such_place():
    with pytest.raises(ConfigError, match="cannot append to /no/where: No such file"):
        Audit("/no/where")
