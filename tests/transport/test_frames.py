import codecs
import struct
import tracemalloc
from dataclasses import dataclass, field

import pytest
import wsproto.events as events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionState, ConnectionType

from rtpipe.transport.connection import WIRE_CODES
from rtpipe.transport.encoding import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    WRITE_BYTES,
    Side,
    close_frame,
    encode,
    ping_frame,
    pong_frame,
)
from rtpipe.transport.frames import (
    EMPTY_FRAGMENTS,
    FRAMES_AT_ONCE,
    PINGS_OWED,
    Ending,
    FrameReader,
    Reassembly,
)

LIMIT = 2**20
bounded = settings(
    deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes = b"\1\2\3\4", rsv: int = 0
) -> bytes:
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 2**16:
        length = struct.pack("!BH", bit | 126, size)
    else:
        length = struct.pack("!BQ", bit | 127, size)
    head = bytes([fin << 7 | rsv << 4 | opcode]) + length + mask
    return head + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else head + payload


@dataclass
class Read:
    """What came out of a reader, ours or another."""

    payloads: list[bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    ponged: bool = False
    ending: tuple[int, str | None] | None = None
    """Code and reason; a breach has no reason, since everybody words it differently."""


def ours(wire: bytes, cuts: list[int], side: Side = Side.SERVER, limit: int = LIMIT) -> Read:
    reader, read, begin = FrameReader(side, limit), Read(), 0
    for cut in [*sorted(cuts), len(wire)]:
        piece = bytearray(wire[begin:cut])
        reader.feed(memoryview(piece))
        piece[:] = bytes(len(piece))  # the buffer is used again
        while reader.more:
            reader.feed(b"")
        begin = max(begin, cut)
        read.payloads += reader.take()
        read.pings += reader.pings
        reader.pings = []
    read.ponged = reader.ponged
    if reader.ending is not None:
        read.ending = (reader.ending.code, None if reader.ending.is_breach else reader.ending.reason)
    return read


def wsprotos(wire: bytes, side: ConnectionType = ConnectionType.SERVER) -> Read:
    framing, read, text = Framing(side), Read(), ""
    framing.receive_data(wire)
    for event in framing.events():
        match event:
            case events.TextMessage():
                text += event.data
                if event.message_finished:
                    read.payloads.append(text.encode())
                    text = ""
            case events.BytesMessage():
                read.ending = (1003, None)
                return read
            case events.Ping():
                read.pings.append(bytes(event.payload))
            case events.Pong():
                read.ponged = True
            case events.CloseConnection():
                told = framing.state is ConnectionState.REMOTE_CLOSING
                read.ending = (int(event.code), (event.reason or "") if told else None)
                return read
    return read


UTF8_OR_NOT = st.text(max_size=40).map(str.encode) | st.binary(max_size=40)
CLOSINGS = st.builds(
    lambda code, reason: struct.pack("!H", code) + reason,
    st.sampled_from([999, 1000, 1004, 1005, 1006, 1011, 1015, 1016, 2999, 3000, 4999, 5000, 65535]),
    st.sampled_from([b"", b"why", "wärum".encode(), b"\xff"]),
)
MASKS = st.sampled_from([b"\1\2\3\4", b"\0\0\0\0", b"\xff\0\x80\x7f"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A text message in some fragments, cut through characters too, with control frames in between."""
    text = draw(st.text(max_size=60) | st.text("aäβ😀", max_size=200)).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    begins, ends = [0, *cuts], [*cuts, len(text)]
    wire = b""
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        last = number == len(cuts)
        opcode = CONTINUATION if number else TEXT
        wire += frame(opcode, text[begin:end], fin=last, mask=draw(MASKS))
        if not last and draw(st.booleans()):
            wire += frame(
                draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=125)), mask=draw(MASKS)
            )
    return wire


SOUND = st.lists(
    messages()
    | st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=MASKS)
    | st.builds(lambda size: frame(TEXT, b"x" * size), st.sampled_from([125, 126, 65535, 65536, 70000])),
    max_size=6,
).map(b"".join)
ANYTHING = st.lists(
    messages()
    | st.builds(
        frame,
        st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, PING, PONG, 3, 7, 11, 15]),
        UTF8_OR_NOT,
        fin=st.booleans(),
        mask=st.sampled_from([b"\1\2\3\4"] * 9 + [b""]),
        rsv=st.sampled_from([0] * 9 + [1, 2, 4]),
    )
    | st.builds(frame, st.just(CLOSE), CLOSINGS | UTF8_OR_NOT)
    | st.binary(max_size=8),
    max_size=8,
).map(b"".join)


@bounded
@given(SOUND, st.lists(st.integers(0, 2000), max_size=8))
def test_sound_frames_read_as_wsproto_reads_them(wire: bytes, cuts: list[int]) -> None:
    assert ours(wire, cuts) == wsprotos(wire)


@bounded
@given(ANYTHING, st.lists(st.integers(0, 400), max_size=8))
def test_anything_reads_as_wsproto_reads_it(wire: bytes, cuts: list[int]) -> None:
    mine, theirs = ours(wire, cuts), wsprotos(wire)
    if mine.ending in [(1002, None), (1003, None)] and theirs.ending is None:
        theirs.ending = mine.ending  # two bytes of a frame tell us, wsproto waits for all of its head
    assert mine == theirs


@bounded
@given(ANYTHING, st.lists(st.integers(0, 400), max_size=8))
def test_how_the_stream_is_cut_makes_no_difference(wire: bytes, cuts: list[int]) -> None:
    assert ours(wire, cuts) == ours(wire, [])


def test_every_cut_of_a_stream_with_everything_in_it() -> None:
    wire = (
        frame(TEXT, "grün 😀".encode())
        + frame(TEXT, "äö".encode()[:3], fin=False)
        + frame(PING, b"between")
        + frame(CONTINUATION, b"", fin=False)
        + frame(CONTINUATION, "äö".encode()[3:])
        + frame(PONG)
        + frame(TEXT, b"y" * 130)
        + frame(CLOSE, struct.pack("!H", 4000) + "tschüß".encode())
        + frame(TEXT, b"too late")
    )
    expected = Read(
        ["grün 😀".encode(), "äö".encode(), b"y" * 130], [b"between"], ponged=True, ending=(4000, "tschüß")
    )
    for cut in range(len(wire)):
        assert ours(wire, [cut]) == expected
    assert ours(wire, list(range(len(wire)))) == expected


@pytest.mark.parametrize("limit", [70_000, 16 * 2**20])
def test_a_frame_longer_than_any_buffer(limit: int) -> None:
    text = ("aß" * (limit // 3)).encode()
    wire = b"".join(encode([text, b"next"], Side.CLIENT))
    assert ours(wire, list(range(0, len(wire), 65_537)), limit=limit).payloads == [text, b"next"]


def test_every_close_code() -> None:
    for code in range(65_536):
        wire = frame(CLOSE, struct.pack("!H", code) + b"why", mask=b"")
        reader = FrameReader(Side.CLIENT, LIMIT)
        reader.feed(wire)
        assert reader.ending is not None
        assert (reader.ending.code, reader.ending.is_breach) == (
            (code, False) if code in WIRE_CODES else (1002, True)
        )
        if (code != 1014 and code % 64 == 0) or (990 < code < 1030 and code != 1014):  # wsproto knows no 1014
            theirs = wsprotos(wire, ConnectionType.CLIENT)
            assert theirs.ending is not None
            assert theirs.ending[0] == reader.ending.code


BREACHES = [
    pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
    pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="a close reason that is not UTF-8"),
    pytest.param(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, id="a message within a message"),
    pytest.param(frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), 1002, id="binary within a message"),
    pytest.param(b"\x81\xfe\x00\x7d\0\0\0\0", 1002, id="two bytes of length where one would do"),
    pytest.param(b"\x81\xff" + struct.pack("!Q", 65535), 1002, id="eight where two would do"),
    pytest.param(b"\x81\xff" + struct.pack("!Q", 2**63), 1002, id="the first bit of a length"),
    pytest.param(b"\x81\xff" + struct.pack("!Q", LIMIT + 1) + b"\0\0\0\0", 1009, id="announced too long"),
    pytest.param(frame(TEXT, b"a", fin=False) + frame(0, b"", fin=False) * 1025, 1009, id="empty fragments"),
    pytest.param(frame(TEXT, b"ab\xc0" + b"c" * 99)[:12], 1007, id="a bad byte, before the frame is whole"),
    pytest.param(
        frame(TEXT, b"\xf4", fin=False) + frame(0, b"\x90", fin=False),
        1007,
        id="a bad byte in a later fragment",
    ),
    pytest.param(frame(PING, b"x" * 126)[:2], 1002, id="a long ping, before the rest of it"),
]


@pytest.mark.parametrize(("wire", "code"), BREACHES)
def test_breaches(wire: bytes, code: int) -> None:
    for cuts in ([], list(range(len(wire)))):
        assert ours(frame(TEXT, b"good") + wire, cuts) == Read([b"good"], ending=(code, None))


def test_each_side_insists_on_masks_or_none() -> None:
    for side, good, bad in (
        (Side.SERVER, frame(TEXT, b"x"), frame(TEXT, b"x", mask=b"")),
        (Side.CLIENT, frame(TEXT, b"x", mask=b""), frame(TEXT, b"x")),
    ):
        assert ours(good + bad, [], side) == Read([b"x"], ending=(1002, None))


def test_fragments_up_to_the_limit_and_one_byte_more() -> None:
    wire = frame(TEXT, b"x" * 50, fin=False) + frame(CONTINUATION, b"x" * 50, fin=False)
    assert ours(wire + frame(CONTINUATION), [], limit=100).payloads == [b"x" * 100]
    assert ours(wire + frame(CONTINUATION, b"x"), [], limit=100).ending == (1009, None)
    assert EMPTY_FRAGMENTS < LIMIT


def test_thousands_of_tiny_frames_are_read_a_few_at_a_time() -> None:
    reader = FrameReader(Side.SERVER, LIMIT, leftover=frame(PING, b"first"))
    assert reader.more
    reader.feed(frame(TEXT, b"x") * (3 * FRAMES_AT_ONCE) + frame(PING, b"last"))
    counts = [len(reader.take())]
    while reader.more:
        reader.feed(b"")
        counts.append(len(reader.take()))
    assert max(counts) <= FRAMES_AT_ONCE
    assert sum(counts) == 3 * FRAMES_AT_ONCE
    assert reader.pings == [b"first", b"last"]


def test_of_many_pings_the_last_few_are_owed() -> None:
    reader = FrameReader(Side.SERVER, LIMIT)
    for number in range(1000):
        reader.feed(frame(PING, b"%d" % number))
    assert reader.pings == [b"%d" % number for number in range(1000 - PINGS_OWED, 1000)]


def test_what_never_ends_takes_no_memory() -> None:
    reader = FrameReader(Side.SERVER, LIMIT)
    wire = frame(PING, b"x" * 125) * 100 + frame(PONG, b"x" * 125) * 100 + frame(TEXT, b"y" * 1000) * 50
    tracemalloc.start()
    for _ in range(100):
        reader.feed(wire)
        while reader.more:
            reader.feed(b"")
        reader.take()
    assert tracemalloc.get_traced_memory()[0] < 50_000
    tracemalloc.stop()


@bounded
@given(st.lists(st.text(max_size=100).map(str.encode) | st.just(b"z" * 65_536), max_size=6))
def test_wsproto_reads_what_is_encoded(payloads: list[bytes]) -> None:
    for side, other in ((Side.CLIENT, ConnectionType.SERVER), (Side.SERVER, ConnectionType.CLIENT)):
        wire = b"".join(encode(payloads, side))
        assert wsprotos(wire + ping_frame(side) + pong_frame(b"p", side), other) == Read(
            payloads, [b""], ponged=True
        )
        assert wsprotos(close_frame(4000, "wärum", side), other).ending == (4000, "wärum")
        assert wsprotos(close_frame(NO_STATUS, "", side), other).ending == (NO_STATUS, "")


def test_encoding_goes_in_pieces_of_bounded_size() -> None:
    payloads = [b"small", b"x" * (WRITE_BYTES + 3), b"y" * (WRITE_BYTES - 1), b"z" * 10, b"last"]
    for side, reading in ((Side.CLIENT, Side.SERVER), (Side.SERVER, Side.CLIENT)):
        pieces = [bytes(piece) for piece in encode(payloads, side)]
        assert max(map(len, pieces)) < WRITE_BYTES + 100
        assert ours(b"".join(pieces), [], reading).payloads == payloads
    assert len(list(encode([b"a"] * 1000, Side.SERVER))) == 1


def test_masks_are_never_used_twice() -> None:
    wire = b"".join(encode([b"\0"] * 1000, Side.CLIENT))
    assert len({wire[at + 2 : at + 6] for at in range(0, len(wire), 7)}) > 990


def test_what_is_not_utf8_is_not_encoded() -> None:
    pieces = encode([b"good", b"\xed\xa0\x80"], Side.SERVER)
    with pytest.raises(UnicodeDecodeError):
        next(pieces)


def test_after_the_ending_nothing_is_read() -> None:
    reader = FrameReader(Side.CLIENT, LIMIT)
    reader.feed(b"\x88\x00\x81\x01x")
    assert reader.ending == Ending(NO_STATUS, "", is_breach=False)
    reader.feed(b"\x81\x01x")
    assert reader.take() == []
    assert not reader.more


@bounded
@given(UTF8_OR_NOT, st.lists(st.integers(0, 40), max_size=4))
def test_utf8_is_judged_as_by_the_standard_library(text: bytes, cuts: list[int]) -> None:
    fragments = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    wire = b""
    for number in range(len(fragments) - 1):
        piece = text[fragments[number] : fragments[number + 1]]
        wire += frame(0 if number else TEXT, piece, fin=number == len(fragments) - 2)
    try:
        codecs.decode(text, "utf-8")
    except UnicodeDecodeError:
        assert ours(wire, []).ending == (1007, None)
    else:
        assert ours(wire, []).payloads == [text]


def test_unfinished_messages_are_bounded_over_all_readers() -> None:
    together = Reassembly(limit=1000)
    readers = [FrameReader(Side.SERVER, LIMIT, reassembly=together) for _ in range(3)]
    for reader in readers:
        reader.feed(frame(TEXT, b"x" * 400, fin=False))
    assert [reader.ending and reader.ending.code for reader in readers] == [None, None, 1013]
    assert together.held == 800
    readers[0].feed(frame(CONTINUATION, b"x" * 100))
    assert readers[0].take() == [b"x" * 500]
    readers[1].discard()
    assert together.held == 0
