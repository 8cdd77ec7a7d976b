"""What a session survives, over real sockets: its upstream lost, its client gone, no upstream to be had."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from tests.daemon.kit import (
    MODEL,
    PATH,
    InProcess,
    Process,
    bearer,
    client,
    in_process,
    listening,
    refused,
    scripted,
    simulated,
)
from tests.daemon.wire import WAIT_S, Address, WebSocket, ask, read_head

KEY = "a-session-of-my-own"
NAMED = f"{PATH}?rtpipe_session={KEY}"
SECOND = """
[[upstream]]
name = "second"
kind = "sim"
url = "{url}"
default_model = "{model}"
"""


def place(url: str) -> Address:
    host, _, port = url.split("//")[1].partition("/")[0].rpartition(":")
    return host, int(port)


async def order(url: str, fault: str) -> None:
    """Have the simulated model do this to every session there is."""
    body = msgspec.json.encode({"fault": fault}).decode()
    head = f"POST /sim/faults HTTP/1.1\r\nHost: sim\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await ask(place(url), (head + body).encode())
    assert answer.status == 200, answer


async def turn(app: WebSocket, words: str) -> list[dict]:
    """Say something and hear the answer."""
    content = [{"type": "input_text", "text": words}]
    await app.tell("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await app.tell("response.create", response={"output_modalities": ["text"]})
    return await app.until("response.done")


def answer_of(events: list[dict]) -> str:
    return events[-1]["response"]["output"][0]["content"][0]["text"]


async def test_the_client_of_a_session_whose_upstream_is_cut_keeps_its_connection(text):
    async with simulated() as url, in_process(text(url)) as gateway, client(gateway.address) as app:
        assert answer_of(await turn(app, "one")) == "You said: one"
        for words in ("two", "three"):
            await order(url, "drop rst")
            events = await turn(app, words)
            assert answer_of(events) == f"You said: {words}"
            kinds = [event["type"] for event in events]
            assert "error" not in kinds
            assert "session.created" not in kinds
            assert kinds.count("conversation.item.added") == 2


async def test_an_upstream_that_died_without_a_word_is_noticed_by_the_pings_it_owes(text):
    async with simulated() as url:
        sooner = text(url).replace('kind = "sim"', 'kind = "sim"\nkeepalive_s = 1')
        async with in_process(sooner) as gateway, client(gateway.address) as app:
            assert answer_of(await turn(app, "one")) == "You said: one"
            await order(url, "stall")
            assert answer_of(await turn(app, "two")) == "You said: two"


class Names(trio.abc.HostnameResolver):
    """Knows where one name leads for the moment."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        assert host == b"model.test"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place(self.url))]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


async def test_the_name_of_the_model_is_looked_up_at_each_dial(text):
    """A session that loses its model finds it where its name leads now, and so does whoever comes."""
    async with (
        scripted() as old,
        scripted() as new,
        in_process(text("ws://model.test/v1/realtime")) as gateway,
    ):
        names = Names(old.url)
        trio.socket.set_custom_hostname_resolver(names)
        async with client(gateway.address):
            upstream = await old.next()
            names.url = new.url
            await upstream.reset()
            await new.next()
            async with client(gateway.address):
                await new.next()


async def test_the_next_upstream_serves_when_the_first_cannot_be_had(text):
    dialled = []

    async def busy(stream: trio.SocketStream) -> None:
        await read_head(stream)
        dialled.append(1)
        head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"
        await stream.send_all(head.encode())

    async with listening(busy) as first, simulated() as second:
        more = SECOND.format(url=second, model=MODEL)
        async with in_process(text(first, more=more)) as gateway:
            for _ in range(3):
                async with client(gateway.address) as app:
                    assert answer_of(await turn(app, "hello")) == "You said: hello"
    assert len(dialled) == 1  # it asked not to be dialled for a minute


async def test_a_live_session_moves_to_the_next_upstream(text):
    async with scripted() as first, simulated() as second:
        more = SECOND.format(url=second, model=MODEL)
        async with in_process(text(first.url, more=more)) as gateway, client(gateway.address) as app:
            upstream = await first.next()
            await upstream.close(1012, "restart")
            upstream = await first.next()
            await upstream.close(1012, "restart")
            gateway.process.rests.failed("model", trio.TooSlowError())
            assert answer_of(await turn(app, "hello")) == "You said: hello"
            (served,) = gateway.process.served.values()
            assert (served.first, served.upstream) == ("model", "second")


async def test_one_that_says_nothing_is_passed_over(text):
    async def mute(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(mute) as first, simulated() as second:
        more = SECOND.format(url=second, model=MODEL) + "[limits]\nconnect_timeout_s = 1.0\n"
        async with in_process(text(first, more=more)) as gateway, client(gateway.address) as app:
            assert answer_of(await turn(app, "hello")) == "You said: hello"


# --- the client comes back


@asynccontextmanager
async def lost_client(gateway: InProcess | Process) -> AsyncIterator[list[dict]]:
    """A client that has named its session, said one thing, and is gone with a reset."""
    async with client(gateway.address, NAMED) as app:
        events = await turn(app, "remember me")
        await app.reset()
    yield events


async def test_a_client_that_comes_back_by_its_key_finds_its_session(text):
    async with simulated() as url, in_process(text(url)) as gateway, lost_client(gateway):
        (session,) = gateway.process.sessions
        async with client(gateway.address, NAMED) as app:
            created = await app.event()
            assert created["type"] == "session.created"
            assert answer_of(await turn(app, "again")) == "You said: again"
            assert list(gateway.process.sessions) == [session]
            log = gateway.process.sessions[session].upstream_edge.carried.log
            assert len(log) == 4
            await app.close(1000, "")
        with trio.fail_after(WAIT_S):
            await gateway.process.empty()


async def test_the_key_may_stand_in_a_header_or_a_subprotocol(text):
    for headers in (
        [("Rtpipe-Session", KEY)],
        [("Sec-WebSocket-Protocol", f"realtime, rtpipe-session.{KEY}")],
    ):
        async with simulated() as url, in_process(text(url)) as gateway, lost_client(gateway):
            (session,) = gateway.process.sessions
            async with client(gateway.address, PATH, [*bearer(), *headers]) as app:
                assert (await app.event())["type"] == "session.created"
                assert list(gateway.process.sessions) == [session]


async def test_another_key_is_another_session_and_a_short_one_is_none(text):
    async with simulated() as url, in_process(text(url)) as gateway, lost_client(gateway):
        async with client(gateway.address, f"{PATH}?rtpipe_session=another-key-of-mine") as app:
            await app.event()
            assert len(gateway.process.sessions) == 2
        answer = await refused(gateway.address, f"{PATH}?rtpipe_session=short")
        assert answer.status == 400


async def test_a_second_client_can_be_refused(text):
    more = '[session]\nsecond_client = "refuse"'
    async with (
        simulated() as url,
        in_process(text(url, more=more)) as gateway,
        client(gateway.address, NAMED) as app,
    ):
        await app.event()
        assert (await refused(gateway.address, NAMED)).status == 409
        assert answer_of(await turn(app, "still mine")) == "You said: still mine"


async def test_a_client_that_has_no_event_yet_may_say_so(text, caplog):
    caplog.set_level("INFO")
    async with (
        simulated() as url,
        in_process(text(url)) as gateway,
        lost_client(gateway),
        client(gateway.address, f"{NAMED}&rtpipe_after=") as app,
    ):
        assert (await app.event())["type"] == "session.created"
        await turn(app, "hello")
    (told,) = [message for message in caplog.messages if "client leg resumed" in message]
    assert "position" not in told


async def test_after_its_last_event_it_gets_exactly_the_rest(text):
    async with simulated() as url, in_process(text(url)) as gateway, lost_client(gateway) as events:
        after, rest = events[4]["event_id"], [event["event_id"] for event in events[5:]]
        async with client(gateway.address, f"{NAMED}&rtpipe_after={after}") as app:
            await app.event()
            again = [(await app.event())["event_id"] for _ in rest]
            assert again == rest
