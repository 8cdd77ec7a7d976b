"""Logs of sessions, and logs as transcripts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from rtpipe.sim import SimOptions
from rtpipe.sim.session import EXPIRED
from rtpipe.testing import ChainHarness, TranscriptError, play, sim_upstream, transcript_of_log
from rtpipe.transport.connection import Connection, ConnectionLost
from tests.sim.kit import tool
from tests.sim.test_faults import CREATE, converse, user


async def recorded(events: list[dict[str, Any]], **options: Any) -> list[str]:
    """The log of a conversation: each event is sent when nothing more comes for the one before."""
    lines: list[str] = []
    async with trio.open_nursery() as nursery:
        chosen = SimOptions(**{"pace": 0, "seed": 1, "log": lines.append, **options})
        connection = sim_upstream(nursery, chosen)
        nursery.start_soon(read, connection)
        for event in events:
            await trio.testing.wait_all_tasks_blocked()
            await connection.send(msgspec.json.encode(event))
        await trio.testing.wait_all_tasks_blocked()
        await connection.close(1000, "")
    return lines


async def read(connection: Connection) -> None:
    try:
        while True:
            await connection.receive()
    except ConnectionLost:
        return


CONVERSATION = [
    {"type": "session.update", "session": {"type": "realtime", "tools": [tool("dice")]}},
    user("call dice"),
    CREATE,
    {"type": "response.cancel", "event_id": "mine"},
    user("how are you"),
    {"type": "response.create"},
]


async def test_a_log_has_every_event_in_order() -> None:
    lines = [msgspec.json.decode(line) for line in await recorded([user("hello")])]
    assert [(line["from"], line.get("event", {}).get("type")) for line in lines] == [
        ("server", "session.created"),
        ("client", "conversation.item.create"),
        ("server", "conversation.item.added"),
        ("server", "conversation.item.done"),
        ("client", None),
        ("server", None),
    ]
    assert lines[1]["event"] == user("hello")
    assert lines[-2]["end"] == {}
    assert lines[-1]["end"] == {"code": 1000, "reason": ""}
    assert {line["session"] for line in lines} == {1}
    times = [line["at_s"] for line in lines]
    assert times == sorted(times)
    assert times[0] >= 0


async def test_a_log_tells_faults_and_what_is_no_event() -> None:
    lines: list[str] = []
    async with trio.open_nursery() as nursery:
        faults = ("garbage json after 2 events", "close 1011 over after 3 events")
        connection = sim_upstream(nursery, SimOptions(pace=0, log=lines.append, faults=faults))
        await connection.send(b"not JSON")
        await read(connection)
    told = [
        {key: line[key] for key in line if key not in ("session", "at_s", "event")}
        for line in map(msgspec.json.decode, lines)
    ]
    assert {"from": "client", "text": "not JSON"} in told
    assert {"from": "server", "fault": faults[0]} in told
    assert {"from": "server", "fault": faults[1]} in told


async def test_a_log_is_replayed_as_a_transcript() -> None:
    transcript = transcript_of_log(await recorded(CONVERSATION))
    assert "upstream -> response.function_call_arguments.done" in transcript
    assert "upstream -> error" in transcript
    assert "client <- response.output_audio.delta" in transcript
    async with ChainHarness({}) as chain:
        await play(transcript, chain)


async def test_a_chain_that_differs_from_the_log_is_found_out() -> None:
    transcript = transcript_of_log(await recorded(CONVERSATION))
    lines = transcript.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("client <- response.done"))
    for changed in ([*lines[:at], *lines[at + 1 :]], [*lines[:at], lines[at], lines[at], *lines[at + 1 :]]):
        async with ChainHarness({}) as chain:
            with pytest.raises(TranscriptError):
                await play("\n".join(changed), chain)


def test_logs_that_are_none() -> None:
    with pytest.raises(TranscriptError, match="line 1 of the log"):
        transcript_of_log(["not JSON"])
    with pytest.raises(TranscriptError, match="no event of session 1"):
        transcript_of_log([])


async def test_a_session_expires(autojump_clock: Any) -> None:
    async with trio.open_nursery() as nursery:
        connection = sim_upstream(nursery, SimOptions(pace=0))
        created = msgspec.json.decode(await connection.receive())["session"]
        began = trio.current_time()
        error = msgspec.json.decode(await connection.receive())
        assert trio.current_time() - began == pytest.approx(3600)
        assert (error["type"], error["error"]["code"]) == ("error", "session_expired")
        with pytest.raises(ConnectionLost) as lost:
            await connection.receive()
        assert (lost.value.closing.code, lost.value.closing.reason) == (1001, EXPIRED)
    assert created["expires_at"] > 3600


async def test_a_session_expires_while_it_speaks_to_nobody(autojump_clock: Any) -> None:
    """A client that stopped reading cannot prolong it."""
    async with trio.open_nursery() as nursery:
        options = SimOptions(pace=1, session_seconds=60, faults=("stall before response.output_audio.delta",))
        connection = sim_upstream(nursery, options)
        await connection.send(msgspec.json.encode({"type": "response.create"}))
        began = trio.current_time()
    assert trio.current_time() - began < 75


async def test_conversations_before_the_end_are_whole(autojump_clock: Any) -> None:
    async with trio.open_nursery() as nursery:
        _, loss = await converse(sim_upstream(nursery, SimOptions(pace=0, session_seconds=5)))
        assert loss is None
