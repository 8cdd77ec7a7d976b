"""Hostile and ambiguous texts against a strict reference parser, written apart from the code under test."""

import itertools
import json
import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe.protocol import reading
from rtpipe.protocol.reading import Unreadable, decode, encode, peek_server_type, read_client

APPEND = "input_audio_buffer.append"


# --- the reference ------------------------------------------------------------------------------------------


class Pairs(list[Any]):
    pass


class Reading(NamedTuple):
    type: str
    event_id: str | None
    duplicates: bool
    value: Any


def reference(payload: bytes) -> Reading | None:
    """What a strict parser that keeps every key reads; None for what must be refused."""
    try:
        top = json.JSONDecoder(
            object_pairs_hook=Pairs, parse_constant=_refuse, parse_float=_finite, parse_int=_integer
        ).decode(payload.decode("utf-8"))
        duplicates = _inspect(top, 1)
    except (ValueError, RecursionError):
        return None
    if not isinstance(top, Pairs):
        return None
    types = [value for key, value in top if key == "type"]
    ids = [value for key, value in top if key == "event_id"]
    if len(types) != 1 or not isinstance(types[0], str) or len(ids) > 1:
        return None
    event_id = ids[0] if ids and isinstance(ids[0], str) else None
    return Reading(types[0], event_id, duplicates, _plain(top))


def _refuse(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError(text)
    return float(text)


def _integer(text: str) -> int:
    if len(text) > 4300:
        raise ValueError("too long")
    return int(text)


def _inspect(value: Any, depth: int) -> bool:
    """Whether a key stands twice anywhere; raises for surrogates that are alone, and for depth."""
    if isinstance(value, str):
        value.encode("utf-8")
        return False
    if not isinstance(value, list):
        return False
    if depth > reading.MAX_DEPTH:
        raise ValueError("deep")
    if isinstance(value, Pairs):
        keys = [key for key, _ in value]
        below = [_inspect(part, depth + 1) for pair in value for part in pair]
        return len(set(keys)) != len(keys) or any(below)
    return any([_inspect(part, depth + 1) for part in value])


def _plain(value: Any) -> Any:
    if isinstance(value, Pairs):
        return {key: _plain(part) for key, part in value}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def compare(payload: bytes) -> bool:
    """Check the code against the reference; whether the payload was accepted."""
    expected = reference(payload)
    try:
        found = read_client(payload)
    except Unreadable:
        assert expected is None, payload
        return False
    assert expected is not None, payload
    assert found.type == expected.type, payload
    assert found.event_id == expected.event_id, payload
    assert (found.duplicate is not None) == expected.duplicates, payload
    # What was judged is what the upstream reads. (`repr`: True is not 1, and 1 is not 1.0.)
    assert repr(decode(payload)) == repr(expected.value), payload
    return True


# --- generated texts ----------------------------------------------------------------------------------------


def spell(text: str, mask: int) -> str:
    """A JSON string in which the characters of the mask are written as escapes."""
    return '"' + "".join(f"\\u{ord(c):04x}" if mask >> i & 1 else c for i, c in enumerate(text)) + '"'


spaces = st.sampled_from(["", "", "", "", " ", "\n", "\t ", "\r\n", " \n  "])
strange_spaces = st.sampled_from(["", "", "", "", "", "", " ", "\x0c", "\x0b", "\xa0", "\ufeff", "\x00"])
masks = st.one_of(st.just(0), st.integers(0, 15), st.integers(0, 2**12))
keys = st.builds(
    spell, st.sampled_from(["type", "event_id", "audio", "session", "a", "b", "", "tools", "é"]), masks
)
strings = st.one_of(
    st.builds(spell, st.sampled_from([APPEND, "session.update", "type", "x", "ü", "\U0001f600"]), st.just(0)),
    st.builds(spell, st.text("abcdé/", max_size=6), masks),
    st.sampled_from(
        [
            r'"\ud800"',
            r'"\udc00x"',
            r'"\ud83d\ude00"',
            r'"\ud83dxxxxxxxxxxxxx"',
            r'"\ude00\ud83d"',
            r'"\u0000"',
            r'"\x"',
            r'"\u12"',
            r'"\/\b\f\n\r\t\\\""',
            '"\x1f"',
            '"\x7f"',
            '"\u2028"',
            "'a'",
            '"',
            '"\\"',
            '"\n"',
        ]
    ),
)
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.25e}".upper()),
    st.sampled_from(
        [
            "0",
            "-0",
            "-0.0",
            "00",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e5",
            "1E+05",
            "1e999",
            "-1e999",
            "1e-999",
            "NaN",
            "Infinity",
            "-Infinity",
            "1" * 30,
            "-" + "9" * 400,
            "1" * 5000,
            "0x10",
            "1_0",
            "١",
            "1e400",
            str(2**63),
            str(2**64),
            str(-(2**63) - 1),
            "0." + "3" * 400,
            "1" + "0" * 309 + ".5",
        ]
    ),
)
scalars = st.one_of(
    strings, numbers, st.sampled_from(["null", "true", "false", "nul", "True", "undefined", ""])
)


def in_object(members: list[tuple[str, str, str, str, str]]) -> str:
    return "{" + ",".join(f"{a}{key}{b}:{c}{value}" for a, key, b, c, value in members) + "}"


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(spaces, keys, spaces, spaces, values), max_size=4).map(in_object)


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda parts: "[" + " ,".join(parts) + "]")


values = st.recursive(scalars, lambda inner: objects(inner) | arrays(inner), max_leaves=6)
proper = st.recursive(
    st.sampled_from(['"x"', "1", "null", "-0.5", r'"\ud83d\ude00"', "1e3", "[]", "12345678901234567890123"]),
    lambda inner: objects(inner) | arrays(inner),
    max_leaves=6,
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    inner = draw(st.sampled_from([values, proper, proper]))
    members = draw(st.lists(st.tuples(spaces, keys, spaces, spaces, inner), max_size=4))
    if draw(st.integers(0, 9)):
        name = draw(st.sampled_from(['"type"', '"type"', '"type"', r'"\u0074ype"', '"TYPE"']))
        members.insert(draw(st.integers(0, len(members))), ("", name, "", " ", f'"{APPEND}"'))
    text = draw(strange_spaces) + in_object(members) + draw(strange_spaces)
    return text.encode("utf-8", "surrogatepass")


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(frames())
def test_objects(payload: bytes) -> None:
    compare(payload)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(values)
def test_any_text(text: str) -> None:
    compare(text.encode("utf-8", "surrogatepass"))


SEEDS = [
    b'{"type":"input_audio_buffer.append","audio":"AAAA"}',
    b'{"event_id":"e1","type":"input_audio_buffer.append","audio":"AAAA"}',
    b'{"audio": "AAAA", "type": "input_audio_buffer.append", "event_id": "e1"}',
    b'{"type":"session.update","session":{"tools":[{"name":"x"},{"name":"y"}],"audio":{"input":null}}}',
]
pieces = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [b'"', b"\\", b'\\"', b"{", b"}", b",", b'"type":"x",', b'"event_id":"x",', b"\xed\xa0\x80"]
    ),
)


@settings(max_examples=1500, derandomize=True, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 110), st.integers(0, 4), pieces), min_size=1, max_size=3),
    st.booleans(),
)
def test_mutated_bytes(payload: bytes, cuts: list[tuple[int, int, bytes]], truncated: bool) -> None:
    for at, length, piece in cuts:
        payload = payload[:at] + piece + payload[at + length :]
    if truncated:
        payload = payload[: cuts[0][0]]
    compare(payload)


HEADS = [
    b'{"type":"input_audio_buffer.append","audio":"',
    b'{"type": "input_audio_buffer.append", "audio": "',
    b'{"event_id":"e1","type":"input_audio_buffer.append","audio":"',
    b' { "event_id" : "e\xc3\xa9" , "type" : "input_audio_buffer.append" , "audio" : "',
    b'{"event_id":"e\x01","type":"input_audio_buffer.append","audio":"',
    b'{"event_id":"e\\"","type":"input_audio_buffer.append","audio":"',
    b'{"audio":"',
    b'{\n  "audio": "',
    b'\xef\xbb\xbf{"audio":"',
    b'\x0c{"type":"input_audio_buffer.append","audio":"',
]
MIDDLES = [
    *(
        b"AAAA",
        b"A\\/A=",
        b"\\",
        b'\\"',
        b'"',
        b"\x01",
        b"\x7f",
        b"\n",
        b"\xc3\xa9",
        b"\xff",
        b"\xed\xa0\x80",
    ),
    *(b"\\ud800", b"\\ud83d\\ude00", b'","type":"session.update', b'","typ\\u0065":"session.update'),
    *(b'","event_id":"e2', b'","audio":"BB', b'","x":{"a":1,"a":2},"y":"'),
]
TAILS = [
    *(b'"}', b'" }\n', b'"', b'"}}', b'",}', b'"} x', b'"}\x00', b'"}\x0c', b"}", b"", b'\\"}'),
    *(b'","event_id":"e3"}', b'", "event_id": "e3\\"}', b'","event_id":7}'),
    *(b'","type":"input_audio_buffer.append"}', b'",\n  "type": "input_audio_buffer.append"\n}'),
    *(b'","type":"input_audio_buffer.append","event_id":"e4"}', b'","type":"session.update"}'),
]


def test_heads_of_audio_followed_by_tricks() -> None:
    middles = [(), *((m,) for m in MIDDLES), *itertools.product(MIDDLES, repeat=2)]
    accepted = sum(
        compare(head + b"".join(middle) + tail)
        for head, middle, tail in itertools.product(HEADS, middles, TAILS)
    )
    assert accepted > 1000


@pytest.mark.parametrize(
    ("payload", "event_id"),
    [
        (b'{"type":"input_audio_buffer.append","audio":"AAAA"}', None),
        (b'{"type": "input_audio_buffer.append", "audio": "AAAA"}', None),
        (b'{"event_id":"e1","type":"input_audio_buffer.append","audio":"AAAA"}', "e1"),
        (b'{"type": "input_audio_buffer.append", "audio": "AAAA", "event_id": "e1"}', "e1"),
        (b'{"audio":"AAAA","type":"input_audio_buffer.append"}', None),
        (b'{\n  "audio": "AAAA",\n  "type": "input_audio_buffer.append",\n  "event_id": "e1"\n}', "e1"),
    ],
)
def test_the_appends_that_clients_write_take_the_cheap_way(
    payload: bytes, event_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_read_in_full", None)
    assert read_client(payload) == (APPEND, event_id, None)


# --- fixed cases --------------------------------------------------------------------------------------------


def wrapped(value: str) -> bytes:
    return f'{{"event_id":"e1","type":"x","value":{value}}}'.encode()


@pytest.mark.parametrize(
    ("payload", "code", "event_id"),
    [
        (b"", "invalid_json", None),
        (b" \n\t ", "invalid_json", None),
        (b"\x00\x01\xfe\xff", "invalid_json", None),
        (b"hello", "invalid_json", None),
        (b'{"type":"x"', "invalid_json", None),
        (b'\xef\xbb\xbf{"type":"x"}', "invalid_json", None),
        ('{"type":"x"}'.encode("utf-16"), "invalid_json", None),
        (wrapped("[" * 200_000 + "]" * 200_000), "invalid_json", None),
        (wrapped('{"a":' * 200_000 + "1" + "}" * 200_000), "invalid_json", None),
        (b"[" * 200_000, "invalid_json", None),
        (wrapped("[" * 256 + "]" * 256), "invalid_json", "e1"),
        (wrapped("NaN"), "invalid_json", "e1"),
        (wrapped("-Infinity"), "invalid_json", "e1"),
        (wrapped("1e999"), "invalid_json", "e1"),
        (wrapped("1" * 5000), "invalid_json", None),
        (wrapped(r'"\ud800"'), "invalid_json", "e1"),
        (wrapped(r'{"\udc00":1}'), "invalid_json", "e1"),
        (rb'{"event_id":"\ud800","type":"x"}', "invalid_json", None),
        (b"[1]", "invalid_type", None),
        (b'"type"', "invalid_type", None),
        (b"{}", "invalid_type", None),
        (b'{"event_id":"e1"}', "invalid_type", "e1"),
        (b'{"type":7,"event_id":"e1"}', "invalid_type", "e1"),
        (b'{"type":null,"event_id":"e1"}', "invalid_type", "e1"),
        (b'{"type":"x","event_id":"e1","type":"x"}', "ambiguous_type", "e1"),
        (b'{"type":"x","event_id":"e1","\\u0074ype":"y"}', "ambiguous_type", "e1"),
        (b'{"type":"x","type":"y","event_id":"e1","event_id":"e2"}', "ambiguous_type", None),
        (b'{"event_id":"e1","type":"x","event\\u005fid":"e2"}', "duplicate_key", None),
    ],
)
def test_refused(payload: bytes, code: str, event_id: str | None) -> None:
    with pytest.raises(Unreadable) as caught:
        read_client(payload)
    assert (caught.value.code, caught.value.event_id) == (code, event_id)
    assert caught.value.message.endswith(".")


def test_running_out_of_memory_is_one_frame_s_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(payload: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "_strict", fail)
    with pytest.raises(Unreadable):
        read_client(b'{"type":"x"}')


@pytest.mark.parametrize(
    ("text", "duplicate"),
    [
        ('{"type":"x"}', None),
        ('{"type":"x","a":1,"a":1}', "a"),
        ('{"type":"x","session":{"tools":[{},{"name":1,"n\\u0061me":2}]}}', "session.tools[1].name"),
        ('{"type":"x","a":[[{"b":1,"b":2}]],"c":{"d":1,"d":2}}', "a[0][0].b"),
        ('{"type":"x","a":[{"type":1},{"type":2}],"b":{"type":3}}', None),
    ],
)
def test_duplicates_are_named(text: str, duplicate: str | None) -> None:
    assert read_client(text.encode()) == ("x", None, duplicate)


def test_nesting_at_the_limit() -> None:
    assert read_client(wrapped("[" * 255 + "]" * 255)).type == "x"
    assert read_client(wrapped("[" + "[]," * 1000 + "[]]")).type == "x"
    assert read_client(wrapped('"' + "[" * 1000 + '"')).type == "x"


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (
            b'{"type":"response.output_audio.delta","event_id":"e","delta":"AAAA"}',
            "response.output_audio.delta",
        ),
        (b'{"type": "response.done", "response": {}}', "response.done"),
        (b'{"event_id":"e","type":"error","error":{}}', "error"),
        (b'{ "event_id" : "e" , "type" : "error" }', "error"),
        (b'{"response_id":"r","type":"error"}', "error"),
        (b'{"type":"unknown.type"}', "unknown.type"),
        (b'{"type":"\\u0065rror"}', "error"),
        (b'{"response":{"type":"inner"},"type":"error"}', "error"),
        *(
            (text, "")
            for text in (b"", b"[]", b"{}", b"null", b'{"type":7}', b'{"type":"', b"\xff", b"[" * 9999)
        ),
    ],
)
def test_peek(payload: bytes, name: str) -> None:
    assert peek_server_type(payload) == name


@settings(max_examples=150, derandomize=True, deadline=None)
@given(frames())
def test_a_peek_reads_what_decoding_reads(payload: bytes) -> None:
    payload = payload.replace(APPEND.encode(), b"response.done")
    expected = reference(payload)
    if expected is not None:
        assert peek_server_type(payload) == expected.type


@pytest.mark.parametrize(
    "payload", [b"", b"[1]", b"nul", b'"x"', b"[" * 200_000, b'{"a":"\xff"}', b'{"a":1e999}']
)
def test_decode_refuses_uniformly(payload: bytes) -> None:
    with pytest.raises(Unreadable):
        decode(payload)


def test_encode_keeps_what_decode_read() -> None:
    data = {"a": [1, -0.5, None, True, 10**40, "é\u2028\U0001f600"], "b": {"": {}}}
    assert decode(encode(data)) == data == json.loads(encode(data))
    assert encode({"a": "é"}) == '{"a":"é"}'.encode()
    with pytest.raises(UnicodeEncodeError):
        encode({"a": "\ud800"})
