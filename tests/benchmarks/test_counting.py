"""What the benchmark's own upstream and clients count: a relay that loses events must not be called fast."""

import random

import pytest

from benchmarks.frames import CLOSE, PING, Broken, Counter, appends, deltas, frame


@pytest.mark.parametrize("masked", [False, True])
def test_counts_whatever_the_pieces(masked: bool) -> None:
    frames = appends(20) if masked else deltas(20)
    ping, close = frame(b"?", masked=masked, opcode=PING), frame(b"\x03\xe8", masked=masked, opcode=CLOSE)
    stream = b"".join([*frames[:10], ping, *frames[10:], frame(b'{"type":"x"}', masked=masked), close])
    head = 8 if masked else 4
    for seed in range(50):
        choice, counter, at, controls = random.Random(seed), Counter(masked=masked), 0, []
        while at < len(stream):
            piece = stream[at : at + choice.choice([1, 2, 3, 9, 200, 7000, 30000])]
            controls += counter.feed(bytearray(piece), len(piece))
            at += len(piece)
        assert (counter.measured, counter.messages) == (20, 21)
        assert counter.measured_bytes == sum(len(each) - head for each in frames)
        assert controls == [(PING, b"?"), (CLOSE, b"\x03\xe8")]
        assert counter.between_frames


def test_fragments_are_one_message() -> None:
    whole = deltas(1)[0][4:]
    first = bytearray(frame(whole[:5000], masked=False))
    first[0] &= 0x7F
    stream = bytes(first) + frame(whole[5000:], masked=False, opcode=0)
    counter = Counter(masked=False)
    counter.feed(stream, len(stream))
    assert (counter.measured, counter.measured_bytes) == (1, len(whole))


def test_half_a_frame_is_noticed() -> None:
    counter = Counter(masked=False)
    piece = deltas(1)[0][:100]
    counter.feed(piece, len(piece))
    assert not counter.between_frames


def test_wrong_mask_is_no_event() -> None:
    with pytest.raises(Broken):
        Counter(masked=True).feed(deltas(1)[0], 10)
