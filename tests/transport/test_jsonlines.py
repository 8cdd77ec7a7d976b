import msgspec
import pytest
import trio
import trio.testing

from rtpipe.transport.connection import ConnectionLost, Peer
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.jsonlines import JsonLines


def pair(**options):
    ours, theirs = trio.testing.memory_stream_pair()
    return JsonLines(ours, Peer("test"), **options), theirs


async def test_lines_both_ways_however_they_are_cut():
    connection, peer = pair(leftover=b'{"a":')
    await connection.send(b'{"x":\n 1,\r\n"y":2}')
    assert await peer.receive_some() == b'{"x":  1,  "y":2}\n'
    for piece in (b"1", b'}\n\n  \n{"b"', b":2}\r\n", b'{"last":3}'):
        await peer.send_all(piece)
    await peer.send_eof()
    assert [await connection.receive() for _ in range(3)] == [b'{"a":1}', b'{"b":2}\r', b'{"last":3}']
    with pytest.raises(ConnectionLost) as lost:
        await connection.receive()
    assert (lost.value.closing.code, lost.value.closing.clean) == (1000, True)


async def test_after_the_end_of_input_the_other_way_stays_open_until_the_answer_is_over():
    connection, peer = pair()

    async def answer():
        await connection.send(b'{"answer":1}')

    connection.at_end_of_input = answer
    await peer.send_eof()
    with pytest.raises(ConnectionLost):
        await connection.receive()
    assert await peer.receive_some() == b'{"answer":1}\n'
    await connection.close(1000, "done")
    assert msgspec.json.decode(await peer.receive_some())["reason"] == "done"


async def test_a_line_over_the_limit_is_told_1009():
    connection, peer = pair(max_line_bytes=100)
    await peer.send_all(b"x" * 200)
    with pytest.raises(ConnectionLost) as lost:
        await connection.receive()
    assert lost.value.closing.code == 1009
    assert msgspec.json.decode(await peer.receive_some())["code"] == 1009


async def test_unfinished_lines_are_bounded_over_all_connections():
    shared = Reassembly(limit=100)
    (first, one), (second, two) = pair(reassembly=shared), pair(reassembly=shared)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.receive)
        await one.send_all(b"x" * 60)
        await two.send_all(b'{"a":1}\n' + b"y" * 60)
        assert await second.receive() == b'{"a":1}'
        with pytest.raises(ConnectionLost) as lost:
            await second.receive()
        assert lost.value.closing.code == 1013
        nursery.cancel_scope.cancel()
    second.discard()
    assert shared.held == 60
    first.discard()
    assert shared.held == 0


async def test_close_says_why_and_ends_the_stream():
    connection, peer = pair()
    await connection.close(4001, "enough")
    await connection.close(1000, "")
    last = msgspec.json.decode(await peer.receive_some())
    assert last == {"type": "rtpipe.closed", "code": 4001, "reason": "enough"}
    assert await peer.receive_some() == b""
    for use in (connection.receive(), connection.send(b"{}")):
        with pytest.raises(ConnectionLost):
            await use


async def test_a_reader_that_stopped_is_given_up(autojump_clock):
    connection, peer = pair()
    peer.receive_stream.close_hook = None
    stream = connection._stream.send_stream
    stuck = trio.Event()
    stream.send_all_hook = stuck.wait
    began = trio.current_time()
    with pytest.raises(ConnectionLost, match="write deadline"):
        await connection.send(b"{}")
    assert trio.current_time() - began == pytest.approx(10)
    with pytest.raises(ConnectionLost):
        await connection.receive()
