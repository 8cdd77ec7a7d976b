"""JSON lines on a Unix socket: sessions for whoever has no WebSocket, and taps."""

import signal

import pytest
import trio

from rtpipe.daemon import taps
from tests.daemon.kit import CREATED, MODEL, running, scripted
from tests.daemon.lines import Lines, reloadable, speaking
from tests.daemon.wire import WAIT_S

RUN = ("--sim", "--sim-pace", "0")
TEXT = {"type": "realtime", "output_modalities": ["text"]}


@pytest.fixture
def door(place, file):
    """Write a configuration with a second listener, at *place*, and return its path."""

    def write(*args, more="", **kwargs):
        listen = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n'
        return file(*args, more=listen + more, **kwargs)

    return write


async def says(lines: Lines, words: str) -> None:
    content = [{"type": "input_text", "text": words}]
    await lines.tell("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await lines.tell("response.create")


def text_of(messages) -> str:
    return "".join(each["delta"] for each in messages if each["type"] == "response.output_text.delta")


async def test_a_conversation_to_its_end(door, place):
    """Text, a tool, and a half-close that waits for the answer."""
    async with running(door(), *RUN), speaking(place, role="session", model=MODEL) as lines:
        welcome = await lines.next()
        assert welcome["type"] == "rtpipe.welcome"
        assert welcome["version"] == 1
        assert welcome["session"].startswith("sess_")
        assert (await lines.next())["type"] == "session.created"
        tool = {"type": "function", "name": "dice", "parameters": {"type": "object"}}
        await lines.tell("session.update", session={**TEXT, "tools": [tool]})
        await says(lines, "how are you")
        assert text_of(await lines.until("response.done")) == "You said: how are you"

        await says(lines, 'call dice {"sides": 20}')
        (call,) = (await lines.until("response.done"))[-1]["response"]["output"]
        assert (call["name"], call["arguments"]) == ("dice", '{"sides": 20}')
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "17"}
        await lines.tell("conversation.item.create", item=output)
        await lines.tell("response.create")
        await lines.stream.send_eof()
        rest = await lines.rest()
        assert text_of(rest) == "The tool answered: 17"
        assert rest[-1] == {"type": "rtpipe.closed", "code": 1000, "reason": ""}


async def test_events_that_cannot_be_read(door, place):
    async with running(door(), *RUN), speaking(place) as lines:
        await lines.until("session.created")
        for bad in (b"{", b"[]", b'{"type":"x","type":"y"}', b'{"no":"type"}'):
            await lines.send(bad + b"\n")
            error = await lines.next()
            assert error["type"] == "error", bad
        await lines.tell("session.update", session=TEXT)
        assert (await lines.next())["type"] == "session.updated"


async def test_pretty_printed_events_are_no_lines(door, place):
    async with running(door(), *RUN), speaking(place) as lines:
        await lines.until("session.created")
        await lines.send(b'{"type":\n"response.create"}\n')
        assert [(await lines.next())["type"] for _ in range(2)] == ["error", "error"]


@pytest.mark.parametrize(
    ("first", "status", "code"),
    [
        (b'{"type":"rtpipe.hello","role":"admin"}', 400, "bad_hello"),
        (b'{"type":"rtpipe.hello","secret":"x"}', 400, "bad_hello"),
        (b'{"type":"session.update"}', 400, "bad_hello"),
        (b"{", 400, "bad_hello"),
        (b'{"type":"rtpipe.hello","version":2}', 400, "unknown_version"),
        (b'{"type":"rtpipe.hello","role":"tap"}', 403, "role_not_allowed"),
        (b'{"type":"rtpipe.hello","role":"tools"}', 403, "role_not_allowed"),
    ],
)
async def test_a_hello_that_is_refused(door, place, first, status, code):
    async with reloadable(door()), await trio.open_unix_socket(str(place)) as stream:
        lines = Lines(stream)
        await lines.send(first + b"\n")
        (answer,) = await lines.rest()
        assert (answer["type"], answer["status"], answer["code"]) == ("rtpipe.refused", status, code)


async def test_a_key_that_is_refused(door, place):
    path = door()
    path.write_text(path.read_text().replace("open = true", ""))
    async with reloadable(path), speaking(place, key="sk-wrong") as lines:
        (answer,) = await lines.rest()
        assert (answer["type"], answer["status"]) == ("rtpipe.refused", 401)
        assert "sk-wrong" not in str(answer)


async def test_a_line_that_is_too_long(door, place):
    limits = "[limits]\nmax_message_bytes = 65536\n"
    async with running(door(more=limits), *RUN), speaking(place) as lines:
        await lines.until("session.created")
        await lines.send(b'{"type":"' + b"x" * 70_000)
        assert (await lines.rest())[-1] == {
            "type": "rtpipe.closed",
            "code": 1009,
            "reason": "a line is longer than the limit",
        }


async def test_the_end_of_the_upstream(door, place):
    async with scripted() as model, reloadable(door(model.url)), speaking(place) as lines:
        upstream = await model.next()
        assert [await lines.next(), await lines.line()][1] == CREATED
        await upstream.close(4321, "enough")
        assert await lines.rest() == [{"type": "rtpipe.closed", "code": 4321, "reason": "enough"}]


async def test_the_end_of_the_daemon(door, place):
    async with running(door(), *RUN) as gateway, speaking(place) as lines:
        await lines.until("session.created")
        gateway.signal(signal.SIGTERM)
        assert (await lines.rest())[-1]["code"] == 1012


ADMIN = '[admin]\nsocket = "{}"\n'


async def test_a_tap_sees_one_session(door, place):
    admin = place.with_name("admin.sock")
    async with (
        running(door(more=ADMIN.format(admin)), *RUN),
        speaking(place) as one,
        speaking(place) as other,
    ):
        session = (await one.next())["session"]
        await other.next()
        async with speaking(
            admin, role="tap", session=session, types=["response.c*", "session.update"]
        ) as tap:
            assert (await tap.next())["type"] == "rtpipe.welcome"
            for each in (other, one):
                await each.until("session.created")
                await each.tell("session.update", session=TEXT)
                await says(each, "hello")
                await each.until("response.done")
            await one.stream.aclose()
            seen = []
            while not seen or seen[-1].get("fact") != "SessionClosed":
                seen.append(await tap.next())
    events = [each for each in seen if each["type"] == "rtpipe.event"]
    assert {each["session"] for each in events} == {session}
    assert [(each["direction"], each["event"]["type"]) for each in events] == [
        ("upstream", "session.update"),
        ("upstream", "response.create"),
        ("downstream", "response.created"),
        ("downstream", "response.content_part.added"),
        ("downstream", "response.content_part.done"),
    ]
    facts = [each for each in seen if each["type"] == "rtpipe.fact"]
    assert {each["fields"]["session"] for each in facts} == {session}
    assert "ResponseEnded" in [each["fact"] for each in facts]


async def test_a_tap_that_does_not_read_misses_lines(door, place, monkeypatch):
    monkeypatch.setattr(taps, "QUEUE_LINES", 20)
    admin = place.with_name("admin.sock")
    async with (
        scripted() as model,
        reloadable(door(model.url, more=ADMIN.format(admin))) as gateway,
        speaking(admin, role="tap") as tap,
        speaking(place) as lines,
    ):
        upstream = await model.next()
        await lines.until("session.created")
        count = 400
        payload = b'{"type":"response.output_text.delta","delta":"' + b"x" * 20_000 + b'"}'
        for _ in range(count):  # nobody waits for the tap
            await upstream.send(payload)
            await lines.line()
        (_,) = gateway.process.taps
        seen, missed = 0, 0
        with trio.fail_after(WAIT_S):
            while seen + missed < count:
                message = await tap.next()
                seen += message.get("event", {}).get("type") == "response.output_text.delta"
                missed += message.get("count", 0)
        assert missed
        assert seen + missed == count


async def test_taps_are_bounded_in_bytes(door, place, monkeypatch):
    monkeypatch.setattr(taps, "QUEUE_BYTES", 100)
    admin = place.with_name("admin.sock")
    async with (
        scripted() as model,
        reloadable(door(model.url, more=ADMIN.format(admin))),
        speaking(admin, role="tap", types=["error"]) as tap,
        speaking(place) as lines,
    ):
        await tap.next()
        upstream = await model.next()
        await lines.until("session.created")
        await upstream.send(b'{"type":"error","error":{"message":"' + b"x" * 500 + b'"}}')
        await lines.next()
        await tap.until("rtpipe.event")
