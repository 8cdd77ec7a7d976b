from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio_websocket

from rtpipe.sim import FaultError, SimOptions
from rtpipe.sim.faults import GRAMMAR, parse
from rtpipe.testing import sim_upstream
from rtpipe.transport.connection import Connection, ConnectionLost
from tests.sim.kit import message
from tests.sim.test_server import call, ending, handshake, joined, opened, receive, serving

CREATE = {"type": "response.create", "response": {"output_modalities": ["text"]}}


def user(text: str) -> dict[str, Any]:
    item = message("user", {"type": "input_text", "text": text})
    return {"type": "conversation.item.create", "item": item}


@pytest.mark.parametrize(
    "words",
    [
        "",
        "drop dead",
        "drop after",
        "drop after 3",
        "drop after -1 events",
        "drop before 3 events",
        "stall 3",
        "slow",
        "slow 0 ms",
        "slow 5 bytes",
        "garbage",
        "garbage fish",
        "close",
        "close 1005",
        "close 999",
        "close 1006 x",
        "refuse",
        "refuse 200",
        "refuse 429 times 0",
        "refuse 429 after 3 events",
        "hang before x",
    ],
)
def test_words_that_order_nothing(words: str) -> None:
    with pytest.raises(FaultError) as refused:
        parse(words)
    assert "\n" not in str(refused.value)


def test_every_line_of_the_grammar_can_be_ordered() -> None:
    for line in GRAMMAR.splitlines():
        for words in line.split("   ")[0].split("|"):
            if words.startswith("..."):
                continue
            plain = words.replace("[rst]", "rst").replace("[REASON]", "why").replace("KIND", "utf8")
            plain = plain.replace("[retry-after S]", "retry-after 3").replace("[times N]", "times 2")
            plain = plain.replace("CODE", "1011").replace("STATUS", "503").replace("N", "7")
            parse(plain)
            if not plain.startswith(("refuse", "hang")):
                parse(f"{plain} after 3 events")
                parse(f"{plain} before response.done")


async def converse(connection: Connection) -> tuple[int, ConnectionLost | None]:
    """One question and its answer; how many events passed, and how it was lost."""
    passed = 0
    try:
        for event in (user("hello"), CREATE):
            wanted = "rate_limits.updated" if event is CREATE else "conversation.item.done"
            await connection.send(msgspec.json.encode(event))
            passed += 1
            while True:
                got = msgspec.json.decode(await connection.receive())["type"]
                passed += 1
                if got == wanted:
                    break
    except ConnectionLost as loss:
        return passed, loss
    return passed, None


async def test_a_cut_at_every_boundary(autojump_clock: Any) -> None:
    """`after n events` cuts a conversation behind each of its events, and nowhere else."""
    async with trio.open_nursery() as nursery:
        whole, loss = await converse(sim_upstream(nursery))
        assert loss is None
        cuts = []
        for n in range(whole + 1):
            options = SimOptions(pace=0, seed=1, faults=(f"drop after {n} events",))
            passed, loss = await converse(sim_upstream(nursery, options))
            cuts.append(passed if loss or n == whole else None)
            if loss:
                assert loss.closing.code == 1006
    # A client's event counts when the model has it, though the client was faster to send it.
    assert len(cuts) == whole + 1
    assert all(passed is not None and n <= passed <= n + 1 for n, passed in enumerate(cuts))


async def test_before_an_event() -> None:
    async with (
        serving(faults=("close 1011 enough before response.done",)) as address,
        opened(address) as socket,
    ):
        await socket.send_message(msgspec.json.encode(CREATE).decode())
        kinds = []
        while not kinds or kinds[-1] != "response.output_item.done":
            kinds.append((await receive(socket))["type"])
        assert await ending(socket) == (1011, "enough")


@pytest.mark.parametrize("how", ["drop", "drop rst"])
async def test_a_text_cuts_the_socket(how: str) -> None:
    async with serving() as address, joined(address) as socket:
        await socket.send_message(msgspec.json.encode(user(f"fault! {how} after 2 events")).decode())
        await socket.send_message(msgspec.json.encode(CREATE).decode())
        kinds = [(await receive(socket))["type"] for _ in range(4)]
        assert kinds == [
            "session.created",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
        assert (await ending(socket))[0] == 1006


async def test_a_text_that_orders_nothing_is_an_error_and_no_item() -> None:
    async with serving() as address, opened(address) as socket:
        await receive(socket)
        await socket.send_message(msgspec.json.encode(user("fault! explode")).decode())
        error = (await receive(socket))["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "item.content")
        assert "explode" in error["message"]
        await socket.send_message(msgspec.json.encode(user("hello")).decode())
        assert (await receive(socket))["previous_item_id"] is None


@pytest.mark.parametrize(
    ("kind", "code"), [("utf8", 1007), ("frame", 1002), ("json", None), ("type", None), ("binary", None)]
)
async def test_garbage(kind: str, code: int | None) -> None:
    async with serving(faults=(f"garbage {kind} after 1 events",)) as address, joined(address) as socket:
        await receive(socket)
        if code is not None:
            with pytest.raises(trio_websocket.ConnectionClosed):
                await socket.get_message()
            return
        got = await socket.get_message()
        if kind == "binary":
            assert got == b"\x00\xff\x00"
        elif kind == "type":
            assert msgspec.json.decode(got)["type"] == "no.such.event"
        else:
            with pytest.raises(msgspec.DecodeError):
                msgspec.json.decode(got)
        await socket.send_message('{"type": "input_audio_buffer.clear"}')
        assert (await receive(socket))["type"] == "input_audio_buffer.cleared"


async def test_a_stall_answers_nothing_and_stays() -> None:
    """In memory, where nothing that happens can still be on its way."""
    async with trio.open_nursery() as nursery:
        connection = sim_upstream(nursery, SimOptions(pace=0, faults=("stall after 1 events",)))
        await connection.receive()
        await connection.send(msgspec.json.encode(CREATE))
        with trio.move_on_after(0.05) as waited:
            await connection.receive()
        assert waited.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_a_stalled_socket_answers_no_ping() -> None:
    async with serving(faults=("stall after 1 events",)) as address, joined(address) as socket:
        await receive(socket)
        with trio.move_on_after(0.05) as waited:
            await socket.ping()
        assert waited.cancelled_caught
        assert socket.closed is None


@pytest.mark.parametrize(("words", "least_s"), [("slow 500 ms", 0.5), ("slow 100 bytes/s", 0.2)])
async def test_slow(words: str, least_s: float, autojump_clock: Any) -> None:
    async with trio.open_nursery() as nursery:
        connection = sim_upstream(nursery, SimOptions(pace=0, faults=(words,)))
        began = trio.current_time()
        await connection.receive()
        assert trio.current_time() - began >= least_s
        nursery.cancel_scope.cancel()


async def test_a_trickle_of_bytes_arrives_whole() -> None:
    async with serving(faults=("slow 100000 bytes/s",)) as address, opened(address) as socket:
        assert (await receive(socket))["type"] == "session.created"


async def test_orders_by_http() -> None:
    async with serving() as address, opened(address) as one, opened(address) as two:
        first, second = [(await receive(socket))["session"]["id"] for socket in (one, two)]
        status, body = await call(address, "GET", "/sim/faults")
        assert status == 200
        assert body["sessions"] == [{"id": first, "events": 1}, {"id": second, "events": 1}]
        order = {"fault": "close 1012 by order", "session": second}
        assert await call(address, "POST", "/sim/faults", order) == (200, {"sessions": [second]})
        assert await ending(two) == (1012, "by order")
        await one.send_message('{"type": "input_audio_buffer.clear"}')
        assert (await receive(one))["type"] == "input_audio_buffer.cleared"
        await call(address, "POST", "/sim/faults", {"fault": "close 1001"})
        assert (await ending(one))[0] == 1001


async def test_orders_for_what_comes() -> None:
    async with serving() as address:
        await call(address, "POST", "/sim/faults", {"fault": "close 4001 after 1 events", "session": "next"})
        await call(address, "POST", "/sim/faults", {"fault": "refuse 503 retry-after 9 times 2"})
        for _ in range(2):
            status, fields, _ = await handshake(address)
            assert status.startswith("HTTP/1.1 503")
            assert fields["retry-after"] == "9"
        async with opened(address) as marked:
            assert (await ending(marked))[0] == 4001
        async with opened(address) as spared:
            await receive(spared)
            await spared.send_message('{"type": "input_audio_buffer.clear"}')
            assert (await receive(spared))["type"] == "input_audio_buffer.cleared"


async def test_orders_can_be_withdrawn() -> None:
    async with serving(faults=("refuse 503",)) as address:
        await call(address, "POST", "/sim/faults", {"fault": "drop", "session": "next"})
        nothing = {"sessions": [], "next": [], "handshakes": []}
        assert await call(address, "DELETE", "/sim/faults") == (200, nothing)
        async with opened(address) as socket:
            await receive(socket)


@pytest.mark.parametrize(
    "order", [{"fault": "explode"}, {"fault": "drop", "session": "sess_none"}, {"fault": "drop", "x": 1}, 7]
)
async def test_orders_that_cannot_be_followed(order: Any) -> None:
    async with serving() as address:
        status, body = await call(address, "POST", "/sim/faults", order)
    assert status == 400
    assert "\n" not in body["error"]["message"]
