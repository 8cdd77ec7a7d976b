"""What one client sends must not keep the others waiting: how much work an event, or a crowd, can ask for."""

from types import SimpleNamespace

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rtpipe.daemon.process import Process
from rtpipe.protocol import reading
from rtpipe.session.client_edge import LARGE_BYTES, MAX_SETTINGS
from rtpipe.testing import ChainHarness

TEXTS = st.text(alphabet=',[{"\\:x', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def values_of(value: object) -> int:
    """The first in each container comes with its bracket, each of the others with a comma."""
    if not isinstance(value, list | dict):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(len(value) - 1, 0) + sum(map(values_of, inner))


@given(VALUES, st.integers(0, 20))
def test_values_are_counted_without_reading_them(value, limit):
    payload = msgspec.json.encode({"type": "x", "v": value})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_MAX_PARTS", limit)
        assert reading._has_too_many_parts(payload) is (values_of({"type": "x", "v": value}) > limit)


@pytest.mark.parametrize("text", ["[]," * 30_000 + "[]", '"",' * 30_000 + '""', '"\\"",' * 90_000 + "1"])
def test_an_event_of_nothing_but_structure_is_refused_unread(text, monkeypatch):
    monkeypatch.setattr(reading, "_parse", lambda _: pytest.fail("it was read"))
    with pytest.raises(reading.Unreadable, match="over 20000 values"):
        reading.read_client(b'{"type":"conversation.item.create","item":[%b]}' % text.encode())


def test_a_long_text_is_one_value():
    text = 'He said, "yes, [no] {perhaps}", ' * 50_000
    frame = reading.read_client(msgspec.json.encode({"type": "conversation.item.create", "item": text}))
    assert frame.type == "conversation.item.create"


async def test_an_update_of_thousands_of_settings_is_refused(autojump_clock):
    async with ChainHarness({}) as chain:
        await chain.client.send(
            {"type": "session.update", "session": {str(n): 1 for n in range(MAX_SETTINGS + 1)}}
        )
        assert [event["error"]["code"] for event in chain.client.take()] == ["too_many_settings"]
        await chain.client.send(
            {"type": "session.update", "session": {str(n): 1 for n in range(MAX_SETTINGS)}}
        )
        assert chain.upstream.take_types() == ["session.update"]


async def test_between_two_events_of_one_read_others_are_served(autojump_clock):
    """However many come at once, and be they answered without a wait."""
    async with ChainHarness({}) as chain:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await chain.session.client_edge.frames([b"no event"] * 200)
            nursery.cancel_scope.cancel()
        assert turns >= 198  # of two tasks that are ready, who goes first is chance


async def test_large_events_wait_for_their_turn_and_stay_in_order(autojump_clock):
    async with ChainHarness({}) as chain:
        turns = []

        async def turn() -> None:
            await trio.testing.wait_all_tasks_blocked()
            turns.append(chain.upstream.take_types())

        chain.session.turn = turn
        small, large = b'{"type":"input_audio_buffer.append","audio":"AAAA"}', b"A" * LARGE_BYTES
        await chain.session.client_edge.frames([small, b'{"type":"odd","a":"%b"}' % large, small])
        await trio.testing.wait_all_tasks_blocked()
        assert turns == [["input_audio_buffer.append"]]
        assert chain.upstream.take_types() == ["odd", "input_audio_buffer.append"]


async def test_of_a_crowd_one_goes_on_at_a_time(autojump_clock):
    process, passed = SimpleNamespace(_turns=trio.Lock()), []

    async def come() -> None:
        await Process.turn(process)
        passed.append(trio.current_time() - began)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(come)
    assert sorted(passed) == pytest.approx([0.002, 0.004, 0.006, 0.006])
