"""What a kill may cost of a session that is written down: what the gateway learned within half a second and
the time of two writings, as the README of the configuration says, and nothing older."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe.api.principal import Principal
from rtpipe.api.secret import Secret
from rtpipe.daemon.config_session import Persist, PersistKey
from rtpipe.daemon.keeper import LOOK_S
from rtpipe.daemon.persistence import Persistence
from rtpipe.daemon.sealing import Sealer
from rtpipe.testing import ChainHarness

VARIABLE = "TEST_SESSION_KEY"
WHO = Principal(id="kiosk", persist=True)
PLACE = ("kiosk", "", b"0" * 32)
PROMISED_S = 0.5


class Disk:
    """What a namespace of the store does, of which each call takes *call_s* and has its effect at the end."""

    def __init__(self, call_s: float = 0, records: dict[str, tuple[bytes, float]] | None = None) -> None:
        self.call_s = call_s
        self.records = records or {}

    async def get(self, key: str) -> bytes | None:
        await trio.sleep(self.call_s)
        value, ends_s = self.records.get(key, (None, 0))
        return value if trio.current_time() < ends_s else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await trio.sleep(self.call_s)
        self.records[key] = value, trio.current_time() + ttl_s

    async def swap(self, key: str, old: bytes | None, new: bytes, *, ttl_s: float) -> bool:
        if await self.get(key) != old:
            return False
        self.records[key] = new, trio.current_time() + ttl_s
        return True

    async def scan(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, (value, _) in self.records.items() if key.startswith(prefix)}

    async def delete(self, key: str) -> None:
        await trio.sleep(self.call_s)
        self.records.pop(key, None)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "k" * 40)


def process(disk: Any, options: Callable[[], Persist] = Persist) -> Persistence:
    sealer = Sealer([PersistKey(id="one", secret=Secret(env=VARIABLE))])
    return Persistence(disk, options, lambda: sealer, lambda _: None)


def said(item_id: str, *parts: Any) -> dict[str, Any]:
    item = {"id": item_id, "type": "message", "role": "user", "content": parts}
    return {"type": "conversation.item.added", "event_id": f"e_{item_id}", "item": item}


async def found(disk: Disk) -> list[str]:
    """The items that another process finds."""
    keeper = await process(disk).keeper(WHO, PLACE)
    assert keeper is not None
    head = await keeper.find()
    return [] if head is None else [item.id for item in head.session.items]


async def left_by_a_kill(gaps_s: list[float], call_s: float, rest_s: float) -> tuple[list[str], list[str]]:
    """A client says something after each gap, and *rest_s* later the process is killed. Returns what it had
    said longer ago than may be missing, and all that the next process finds."""
    disk, told = Disk(call_s), list[tuple[str, float]]()
    async with ChainHarness({}, principal=WHO) as chain:
        chain.session.parking.allow()
        keeper = await process(disk).keeper(WHO, PLACE)
        assert keeper is not None
        chain.session.start(keeper.run, chain.session)
        for number, gap_s in enumerate(gaps_s):
            await trio.sleep(gap_s)
            await chain.upstream.send(said(f"u{number}"))
            told.append((f"u{number}", trio.current_time()))
        await trio.sleep(rest_s)
        killed_at = trio.current_time()
        there = await found(Disk(0, dict(disk.records)))
    writing_s = 3 * call_s  # the record, who has the place, the place
    old = [item_id for item_id, at in told if at < killed_at - PROMISED_S - 2 * writing_s]
    assert there == [item_id for item_id, _ in told][: len(there)]  # what is missing is the newest
    return old, there


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.003, 0.1, 0.7]),
    st.floats(0, 3),
)
def test_nothing_older_than_promised_is_missing(gaps_s: list[float], call_s: float, rest_s: float) -> None:
    async def run() -> None:
        old, there = await left_by_a_kill(gaps_s, call_s, rest_s)
        assert there[: len(old)] == old

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "k" * 40)
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("hours", [[1], [0.1, 24]], ids=str)
async def test_a_living_session_does_not_expire(autojump_clock: Any, hours: list[float]) -> None:
    """Nor do its pictures, which are not written with every change; *hours* is `retention_h`, and after a
    reload."""
    disk = Disk()
    async with ChainHarness({}, principal=WHO) as chain:
        chain.session.parking.allow()
        keeper = await process(disk, lambda: Persist(retention_h=hours[0])).keeper(WHO, PLACE)
        assert keeper is not None
        chain.session.start(keeper.run, chain.session)
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{'A' * 1000}"}
        await chain.upstream.send(said("u1", image))
        await trio.sleep(1)
        hours[:] = hours[-1:]
        await chain.upstream.send(said("u2"))
        for _ in range(20):
            await trio.sleep(hours[0] * 900)
            assert await found(disk) == ["u1", "u2"]


async def test_who_is_gone_and_comes_back_to_another_process_is_not_answered_here(
    autojump_clock: Any,
) -> None:
    """Within the time in which each process looks, while nothing is said that would be written."""
    disk = Disk()
    async with ChainHarness({}, principal=WHO) as chain:
        chain.session.parking.allow()
        here, there = [await process(disk).keeper(WHO, PLACE) for _ in range(2)]
        assert here is not None
        assert there is not None
        chain.session.start(here.run, chain.session)
        await trio.sleep(1)
        chain.client.connection.abort()
        await trio.sleep(1)
        head = await there.find()
        assert head is not None
        await there.take_over(head)
        assert chain.session.ending is None
        await trio.sleep(LOOK_S + 1)
        assert chain.session.ending is not None
        assert chain.session.ending.reason == "taken up elsewhere"
