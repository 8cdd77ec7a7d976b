"""What makes cut calls comparable must not make different conversations alike."""

import pytest

from tests.daemon.wire import frame
from tests.survival.conversation import Conversation, Told, difference
from tests.survival.cutting import Cut, _Events

CALL = [
    ("user", "call dice"),
    ("call", "dice {}"),
    ("output", "4"),
    ("assistant", "The tool answered: 4"),
    ("user", "Speech of 1.4 seconds."),
    ("assistant", "I heard 1.4 seconds of audio."),
]
UPSTREAM, CLIENT = Cut("x", "upstream", "rst"), Cut("x", "client", "rst")
DEAF = Cut("x", "client", "rst", counts=False)


def told(said: list[tuple[str, str]], *lost: str, **finished: int) -> Told:
    conversation = Conversation({str(n): each for n, each in enumerate(said)})
    conversation.finished.update(finished or {"dice": 1})
    return Told([conversation], list(lost))


def without(place: int) -> list[tuple[str, str]]:
    return [each for n, each in enumerate(CALL) if n != place]


@pytest.mark.parametrize("call", [UPSTREAM, CLIENT, DEAF])
def test_the_same_is_the_same(call):
    assert difference(call, told(CALL), told(CALL)) is None


@pytest.mark.parametrize("call", [UPSTREAM, CLIENT])
@pytest.mark.parametrize(
    "said", [*map(without, range(len(CALL))), [*CALL, CALL[-1]], [CALL[0], *CALL], [*CALL[:3], *CALL[2:]]]
)
def test_what_is_missing_and_what_is_there_twice_is_a_difference_whatever_was_named(call, said):
    named = "1 answer(s) cut off, 1 item(s) of speech without words, 3 event(s) that may not have arrived"
    assert difference(call, told(said), told(CALL)) is not None
    assert difference(call, told(said, named), told(CALL)) is not None


def test_a_second_answer_to_a_turn_is_a_difference():
    assert "answered twice" in (difference(UPSTREAM, told(CALL, dice=2), told(CALL)) or "")


def test_other_words_are_a_difference_unless_an_answer_was_cut_off():
    said = [*CALL[:3], ("assistant", "else"), *CALL[4:]]
    assert difference(UPSTREAM, told(said), told(CALL)) is not None
    assert difference(UPSTREAM, told(said, "1 answer(s) cut off"), told(CALL)) is None


def test_how_long_the_caller_was_heard_may_differ_where_its_own_way_was_cut():
    said = [*CALL[:4], ("user", "Speech of 0.9 seconds."), ("assistant", "I heard 0.9 seconds of audio.")]
    assert difference(CLIENT, told(said), told(CALL)) is None
    assert difference(UPSTREAM, told(said), told(CALL)) is not None


def test_one_that_does_not_count_may_say_a_turn_again_and_must_not_lose_one():
    assert difference(DEAF, told([*CALL, *CALL[-2:]], dice=2), told(CALL)) is None
    assert difference(DEAF, told([*CALL[-2:], *CALL]), told(CALL)) is not None
    assert difference(DEAF, told(without(4)), told(CALL)) is not None


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_each_frame_is_one_event_however_it_comes(size):
    text, ping, long = frame(b"a"), frame(b"", 9), frame(b"b" * 70_000)
    data = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + text + ping + long
    events = _Events(has_head=True)
    pieces = [piece for at in range(0, len(data), size) for piece in events.of(data[at : at + size])]
    assert [is_event for _, is_event in pieces] == [False, True, False, True]
    assert b"".join(piece for piece, _ in pieces) == data
