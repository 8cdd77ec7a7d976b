"""What somebody hostile thinks of who knows how gateways are built: nothing gets further than it may."""

import hashlib
import os
import socket
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.daemon.kit import (
    KEY,
    PATH,
    Process,
    bearer,
    client,
    in_process,
    meeting,
    refused,
    running,
    scripted,
    simulated,
)
from tests.daemon.lines import ask as ask_admin
from tests.daemon.lines import speaking
from tests.daemon.test_certificates import secured
from tests.daemon.test_tls import tls
from tests.daemon.wire import CLOSE, CONTINUATION, TEXT, WAIT_S, WebSocket, ask, frame, knock, upgrade
from tests.transport import certificates

OTHER = "sk-of-a-stranger"
OTHERS = f"""
[[plugins.auth.keys]]
id = "stranger"
sha256 = "{hashlib.sha256(OTHER.encode()).hexdigest()}"
"""
BEHIND = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = upgrade(PATH, bearer())
VICTIM = f"{PATH}?rtpipe_session=the-key-of-a-session"


def megabytes(gateway: Process) -> float:
    pages = Path(f"/proc/{gateway.process.pid}/statm").read_text("ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE") / 1e6


def with_headers(head: bytes, *headers: str) -> bytes:
    return head.replace(b"\r\n\r\n", "".join(f"\r\n{each}" for each in headers).encode() + b"\r\n\r\n")


def nobody_was_dialled(model) -> None:
    with pytest.raises(trio.WouldBlock):
        model._channel.receive_nowait()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (with_headers(UPGRADE, "Content-Length: 19") + frame('{"type":"behind"}'), 400),
        (with_headers(UPGRADE, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n" + BEHIND, 400),
        (with_headers(UPGRADE, "Content-Length: 2", "Content-Length: 40") + b"{}" + BEHIND, 400),
        (with_headers(UPGRADE, "Transfer-Encoding: xchunked") + b"0\r\n\r\n" + BEHIND, 400),
        (UPGRADE.replace(b"Host:", b"Host :"), 400),
        (with_headers(UPGRADE, "Host: other"), 400),
        (UPGRADE.replace(b" /v1", b" http://other.test/v1"), 400),
        (UPGRADE.replace(b"GET", b"POST"), 426),
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (BEHIND * 3, 200),
    ],
    ids=[
        "a body", "chunks", "two lengths", "chunks of another kind", "a blank before the colon", "two hosts",
        "another server's address", "POST", "CONNECT", "HTTP/2", "three requests at once",
    ],
)  # fmt: skip
async def test_a_request_that_hides_another(text, raw, status):
    """One answer, and the end: there is no second request to be read differently from somebody before us."""
    async with scripted() as model, in_process(text(model.url)) as gateway:
        answer = await ask(gateway.address, raw)
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert b"HTTP/1.1 " not in answer.rest
        nobody_was_dialled(model)


async def test_frames_of_whoever_is_refused(text):
    """Sent before the answer, they are nobody's."""
    async with scripted() as model, in_process(text(model.url)) as gateway:
        early = upgrade(PATH, bearer(OTHER)) + frame('{"type":"response.create"}') * 100
        assert (await ask(gateway.address, early)).status == 401
        nobody_was_dialled(model)


async def test_whoever_says_that_he_is_somebody_else(file, tmp_path):
    """With the header of a proxy, at a door that has none before it."""
    audit = tmp_path / "audit"
    async with running(file(more=f'[audit]\nfile = "{audit}"')) as gateway:
        spoof = b"PROXY TCP4 203.0.113.9 203.0.113.1 1 2\r\n" + upgrade(PATH, bearer(OTHER))
        assert (await ask(gateway.address, spoof)).status == 400
        said = [("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9"), ("X", "x" * 30_000)]
        assert (await refused(gateway.address, headers=[*bearer(OTHER), *said])).status == 401
    shown = gateway.err + audit.read_text()
    assert "127.0.0.1" in shown
    assert "203.0.113" not in shown
    assert len(shown) < 2000


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (PATH, [*bearer(), *bearer(OTHER)]),
        (PATH, [*bearer(), ("api-key", OTHER)]),
        (PATH, bearer(KEY.replace("-", "%2D"))),
        (PATH, bearer(f"{KEY}, {KEY}")),
        (f"{PATH}?api-key={KEY}", []),
        (f"{PATH}?%61pi-key={KEY}", bearer()),
    ],
)
async def test_keys_that_can_be_read_in_two_ways(text, target, headers):
    async with scripted() as model, in_process(text(model.url, more=OTHERS)) as gateway:
        assert (await refused(gateway.address, target, headers)).status in (400, 401)
        nobody_was_dialled(model)


@pytest.mark.parametrize("order", [1, -1])
async def test_two_keys_in_one_subprotocol(text, order):
    """A page is told over the WebSocket, and the model hears nothing."""
    offered = ", ".join(["realtime", *(f"openai-insecure-api-key.{key}" for key in (KEY, OTHER)[::order])])
    async with scripted() as model, in_process(text(model.url, more=OTHERS)) as gateway:
        answer = await knock(gateway.address, PATH, [("Sec-WebSocket-Protocol", offered)])
        assert isinstance(answer, WebSocket)
        (event,), end = await answer.ended()
        assert (event["type"], end.code) == ("error", 3000)
        nobody_was_dialled(model)


@pytest.mark.parametrize(
    "query",
    ["model=m%26call_id%3Dx%23f", "model=m%0d%0aX-Evil:%201", "model=m&model=n", "model=m&a=%26&call=1"],
)
async def test_a_model_that_would_be_more_of_the_url(text, query):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model, f"{PATH}?{query}") as (_, upstream),
    ):
        assert upstream.head.target.startswith(f"{PATH}?model=m")
        assert not {"&", "#"} & set(upstream.head.target)
        assert not any("evil" in name for name in upstream.head.headers)


async def test_a_message_of_a_million_empty_fragments(file):
    async with scripted() as model, running(file(model.url)) as gateway:
        async with meeting(gateway, model) as (app, _):
            before = megabytes(gateway)
            await app.stream.send_all(frame("", TEXT, fin=False))
            with suppress(trio.BrokenResourceError):
                for _ in range(100):
                    await app.stream.send_all(frame("", CONTINUATION, fin=False) * 10_000)
            await gateway.said("a message may have")
            assert megabytes(gateway) < before + 10
        async with meeting(gateway, model):
            pass


async def test_what_comes_behind_the_close_frame(text):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        late = frame('{"type":"response.create"}')
        await app.stream.send_all(frame((1000).to_bytes(2, "big"), CLOSE) + late)
        assert (await app.ended())[1].code == 1000
        events, end = await upstream.ended()
        assert (events, end.code) == ([], 1000)


async def test_a_stranger_who_knows_the_key_of_a_session(text):
    """And many who are let in and fight for one: it is one session's, and its last client's."""
    async with simulated() as model, in_process(text(model, more=OTHERS)) as gateway:
        async with client(gateway.address, VICTIM) as app:
            (mine,) = await app.until("session.created")
            async with client(gateway.address, VICTIM, bearer(OTHER)) as stranger:
                (theirs,) = await stranger.until("session.created")
            assert theirs["session"]["id"] != mine["session"]["id"]
            await app.tell("response.create", response={"output_modalities": ["text"]})
            await app.until("response.done")

        async def fight():
            for _ in range(20):
                answer = await knock(gateway.address, VICTIM, bearer())
                assert isinstance(answer, WebSocket)
                await trio.aclose_forcefully(answer.stream)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fight)
        async with client(gateway.address, VICTIM) as app:
            await app.tell("response.create", response={"output_modalities": ["text"]})
            await app.until("response.done")
        assert len(gateway.process.sessions) == 2  # that one, and the stranger's


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # a socket's path must be short
        yield Path(name)


async def test_a_flood_of_hellos_that_do_not_end(file, folder):
    """Others get in meanwhile; when their time is over nothing of them stays."""
    place = folder / "rtpipe.sock"
    door = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n[limits]\nhandshake_timeout_s = 2\n'
    async with running(file(more=door), "--sim") as gateway:
        before, descriptors = megabytes(gateway), gateway.descriptors()
        many = [await trio.open_unix_socket(str(place)) for _ in range(100)]
        for stream in many:
            await stream.send_all(b'{"type":"rtpipe.hello","key":"' + b"a" * 50_000)
        async with speaking(place, role="session") as lines:
            assert (await lines.next())["type"] == "rtpipe.welcome"
        await gateway.said("The hello did not come in time.", times=100)
        assert megabytes(gateway) < before + 50
        for stream in many:
            await trio.aclose_forcefully(stream)
        with trio.fail_after(WAIT_S):
            while gateway.descriptors() > descriptors:  # noqa: ASYNC110 - /proc tells nobody
                await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/../../etc/passwd", 404),
        ("DELETE", "/sessions/../plugins", 404),
        ("GET", "/sessions/%2e%2e", 404),
        ("GET", "/sessions/\x1b[2J", 400),
        ("DELETE", f"/sessions/{'a' * 5000}", 404),
        ("POST", f"/reload?x={'a' * 70_000}", 414),
        ("GET", PATH, 404),
    ],
)
async def test_odd_requests_at_the_admin_socket(text, folder, method, target, status):
    place = folder / "admin.sock"
    async with in_process(text(more=f'[admin]\nsocket = "{place}"')):
        answer = await ask_admin(place, target, method)
        assert answer.status == status
        assert answer.error["message"].isprintable()


async def test_whoever_ends_tls_and_stays(file, tmp_path):
    """His farewell in TLS ends the session; a handshake that is only half of one takes no room for long."""
    pair = certificates.make(tmp_path / "tls", "127.0.0.1")
    more = "[limits]\nhandshake_timeout_s = 1\n"
    async with scripted() as model, running(file(model.url, listen=tls(*pair[:2]), more=more)) as gateway:
        await gateway.said("\n")
        (door,) = [part for part in gateway.out.split() if part.startswith("wss://")]
        port = int(door.split("/")[2].rpartition(":")[2])
        descriptors = gateway.descriptors()
        half = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
        for stream in half:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00")
            stream.socket.shutdown(socket.SHUT_WR)
        app = await secured(gateway, pair)
        upstream = await model.next()
        await app.until("session.created")
        with pytest.raises(ssl.SSLWantReadError):
            app.stream._ssl_object.unwrap()  # trio's own way closes the socket too
        await app.stream.transport_stream.send_all(app.stream._outgoing.read())
        assert (await upstream.ended())[1].code in (1000, 1001)
        with trio.fail_after(WAIT_S):
            while gateway.descriptors() > descriptors:  # noqa: ASYNC110 - /proc tells nobody
                await trio.sleep(0.01)
        for stream in (*half, app.stream):
            await trio.aclose_forcefully(stream)


async def test_ids_like_ours(text):
    """What a client causes under such an id is its own, and it is told."""
    async with simulated() as model, in_process(text(model)) as gateway, client(gateway.address) as app:
        await app.until("session.created")
        await app.tell("conversation.item.retrieve", item_id="none", event_id="rtp_1")
        assert (await app.event())["error"]["event_id"] == "rtp_1"
        await app.tell("session.update", session={"type": "realtime"}, event_id="rtp_2")
        await app.until("session.updated")
        await app.tell("response.create", response={"output_modalities": ["text"]}, event_id="rtp_3")
        await app.until("response.done")
