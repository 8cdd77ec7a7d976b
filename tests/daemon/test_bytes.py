"""What nobody replaces arrives to the byte as sent; what cannot be read is answered and goes nowhere."""

import json
import struct
from contextlib import suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.daemon.kit import client, config, in_process, meeting, scripted
from tests.daemon.wire import CLOSE, CONTINUATION, TEXT, Ended

MIB = 1024 * 1024

ODD = [
    b'{"type":"response.cancel"}',
    b' \r\n\t{ "type" : "response.cancel" , "x" : [ 1 , 2 ] }\n ',
    b'{"x":{"type":"inner"},"type":"response.cancel"}',
    b'{"type":"made.up","made":{"up":[null,true,false,{}]}}',
    b'{"type":"response.cancel","n":123456789012345678901234567890}',
    b'{"type":"response.cancel","n":[1.0,1e5,1E+5,-0,-0.0,0.1000000000000000055511151231257827]}',
    b'{"type":"response.cancel","s":"\\u0041\\u00e9\\ud83c\\udf89\\/\\b\\u0000"}',
    '{"type":"response.cancel","s":"é🎉\u2028\ufeff\x7f"}'.encode(),
    b'{"type":"response.c\\u0061ncel"}',
    b'{"\\u0074ype":"response.cancel"}',
    b'{"type":"","a":1}',
    b'{"type":"response.cancel","x":' + b"[" * 100 + b"]" * 100 + b"}",
    b'{"type":"input_audio_buffer.append","audio":"","x":"\\""}',
    b'{"event_id":"e","type":"input_audio_buffer.append","audio":"AAAA","extra":{"type":7}}',
    b'{"type":"response.create","response":{"metadata":{"k":"\\u00e9"}},"event_id":"client"}',
    b'{"type":"session.update","session":{"type":"realtime","unknown":{"a":1.50}}}',
]


@pytest.mark.parametrize("chain", [["auth"], ["auth", "response-lock"]], ids=len)
async def test_odd_texts_travel_unchanged(text, chain):
    async with (
        scripted() as model,
        in_process(text(model.url, chain=chain)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        for payload in ODD:
            await app.send(payload)
            assert await upstream.receive() == payload
        for payload in (b'{"type":"response.done"', b"[1]", b"nonsense", b"7", *ODD):
            await upstream.send(payload)
            assert await app.receive() == payload


async def test_audio_of_15_mib(text):
    payload = b'{"type":"input_audio_buffer.append","audio":"' + b"QUJD" * (15 * MIB // 4) + b'"}'
    back = b'{"type":"response.output_audio.delta","delta":"' + b"QUJD" * (15 * MIB // 4) + b'"}'
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        await app.send(payload)
        assert await upstream.receive() == payload
        await upstream.send(back)
        assert await app.receive() == back


async def test_fragments_are_joined(text):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        pieces = ['{"type":"x","s":"é', "🎉", "", '"}']
        for number, piece in enumerate(pieces):
            opcode = TEXT if number == 0 else CONTINUATION
            await app.send(piece, opcode, fin=number == len(pieces) - 1)
        assert (await upstream.receive()).decode() == "".join(pieces)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
events = st.tuples(
    st.dictionaries(st.text().filter(lambda key: key != "type"), json_values, max_size=4),
    st.sampled_from(["response.cancel", "response.create", "input_audio_buffer.append", "made.up", "a b"]),
    st.booleans(),
    st.sampled_from([None, 1]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(events, min_size=1, max_size=5))
def test_any_event_travels_unchanged(tmp_path_factory, made):
    payloads = [
        json.dumps({**fields, "type": kind}, ensure_ascii=escaped, indent=indent).encode("utf-8", "replace")
        for fields, kind, escaped, indent in made
    ]

    async def check() -> None:
        async with scripted() as model:
            text = config(tmp_path_factory.getbasetemp(), model.url)
            async with in_process(text) as gateway, meeting(gateway, model) as (app, upstream):
                for payload in payloads:
                    await app.send(payload)
                    assert await upstream.receive() == payload
                    await upstream.send(payload)
                    assert await app.receive() == payload

    trio.run(check)


DEEP = b"[" * 200_000 + b"]" * 200_000
REFUSED = {
    "not JSON": b"hello",
    "an array": b"[1]",
    "empty": b"",
    "an empty object": b"{}",
    "a number as type": b'{"type":7}',
    "no type": b'{"event_id":"mine"}',
    "two types": b'{"type":"response.cancel","type":"response.create"}',
    "two types, one escaped": b'{"type":"response.cancel","\\u0074ype":"response.create"}',
    "two keys in a judged event": b'{"type":"response.create","response":{"a":1,"a":2}}',
    "two keys in an item": b'{"type":"conversation.item.create","item":{},"item":{}}',
    "too deep": b'{"type":"response.create","x":' + DEEP + b"}",
    "too deep, type last": b'{"x":' + DEEP + b',"type":"response.create"}',
    "NaN": b'{"type":"response.create","x":NaN}',
    "beyond a double": b'{"type":"response.create","x":1e999}',
    "5,000 digits": b'{"type":"response.create","x":' + b"9" * 5000 + b"}",
    "cut off": b'{"type":"response.create"',
    "two values": b'{"type":"response.create"}{}',
    "a lone surrogate as type": b'{"type":"\\ud800"}',
}
# Legal to some reader and not judged: passed on as they are, or refused; never a broken session.
UNSURE = {
    "a lone surrogate": b'{"type":"response.create","s":"\\ud800"}',
    "NaN, unjudged": b'{"type":"response.cancel","x":NaN}',
    "too deep, unjudged": b'{"type":"response.cancel","x":' + DEEP + b"}",
    "5,000 digits, unjudged": b'{"type":"response.cancel","x":' + b"9" * 5000 + b"}",
    "two keys, unjudged": b'{"type":"response.cancel","a":1,"a":2}',
}
CLOSED = {
    "a binary frame": (b"\x82\x80abcd", 1003),
    "bad UTF-8": (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
    "a reserved opcode": (b"\x83\x80abcd", 1002),
    "a reserved bit": (b"\xc1\x80abcd", 1002),
    "no mask": (b"\x81\x02{}", 1002),
    "a long ping": (b"\x89\xfe\0\x7eabcd" + bytes(126), 1002),
    "a close code of 999": (b"\x88\x82\0\0\0\0\x03\xe7", 1002),
}


async def works(app, upstream):
    await app.send(b'{"type":"ping.it"}')
    assert await upstream.receive() == b'{"type":"ping.it"}'
    await upstream.send(b'{"type":"pong.it"}')
    assert await app.receive() == b'{"type":"pong.it"}'


async def test_malformed_frames_hurt_nobody_else(text):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (other, theirs),
        meeting(gateway, model) as (app, mine),
    ):
        for name, payload in REFUSED.items():
            await app.send(payload)
            error = await app.event()
            assert error["type"] == "error", name
            assert error["error"]["type"] == "invalid_request_error", name
            if b'"mine"' in payload:
                assert error["error"]["event_id"] == "mine"
            await works(other, theirs)
        for payload in UNSURE.values():
            await app.send(payload)
        # What was refused went nowhere, and the session lives.
        await app.tell("the.end")
        arrived = [await mine.receive()]
        while arrived[-1] != b'{"type":"the.end"}':
            arrived.append(await mine.receive())
        assert set(arrived[:-1]) <= set(UNSURE.values())


@pytest.mark.parametrize("name", CLOSED)
async def test_what_is_no_websocket_is_closed(text, name):
    raw, code = CLOSED[name]
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (other, theirs),
        meeting(gateway, model) as (app, mine),
    ):
        await app.stream.send_all(raw)
        assert (await app.ended())[1].code == code
        assert isinstance((await mine.ended())[1], Ended)
        await works(other, theirs)


async def test_a_message_of_64_mib(text):
    """1009 as soon as the limit is passed; what is still on its way is read and forgotten."""
    async with scripted() as model, in_process(text(model.url)) as gateway, client(gateway.address) as app:
        await app.receive()

        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await app.send(bytes(64 * MIB))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            opcode, payload, _ = await app.receive_frame()
            nursery.cancel_scope.cancel()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 1009))


async def test_max_message_bytes_both_ways(text):
    limits = "[limits]\nmax_message_bytes = 65536"
    fits = b'{"type":"x","s":"' + b"a" * (65536 - 19) + b'"}'
    async with scripted() as model, in_process(text(model.url, more=limits)) as gateway:
        async with meeting(gateway, model) as (app, upstream):
            await app.send(fits)
            assert await upstream.receive() == fits
            await app.send(fits + b" ")
            assert (await app.ended())[1].code == 1009
        async with meeting(gateway, model) as (app, upstream):
            await upstream.send(fits)
            assert await app.receive() == fits
            await upstream.send(fits + b" ")
            assert (await upstream.ended())[1].code == 1009
            assert isinstance((await app.ended())[1].code, int)
