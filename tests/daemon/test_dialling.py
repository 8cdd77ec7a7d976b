"""The handshake with the upstream: what is said in it, and what its refusal means for the client."""

import pytest
import trio

from tests.daemon.kit import (
    CREATED,
    KEY,
    MODEL,
    UPSTREAM_KEY,
    bearer,
    client,
    in_process,
    listening,
    meeting,
    refused,
    scripted,
)
from tests.daemon.wire import WAIT_S, frame, read_head, reset, switch, upgrade

SECONDS = "[limits]\nconnect_timeout_s = 0.5"


async def test_what_the_upstream_is_told(text):
    """The gateway's own key and the model: nothing of what came with the client."""
    headers = [
        *bearer(),
        ("OpenAI-Organization", "theirs"),
        ("OpenAI-Safety-Identifier", "theirs"),
        ("Cookie", "a=b"),
        ("User-Agent", "app/1"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Sec-WebSocket-Protocol", "realtime, openai-organization.theirs"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ]
    target = f"/v1/realtime?model={MODEL}&voice=x&safety=off&rtpipe_events=1&a=%26model%3Dy"
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model, target, headers) as (app, upstream),
    ):
        assert upstream.head.target == f"/v1/realtime?model={MODEL}"
        assert sorted(name for name, _ in upstream.head.pairs) == [
            "authorization",
            "connection",
            "host",
            "sec-websocket-key",
            "sec-websocket-version",
            "upgrade",
        ]
        assert upstream.head.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert KEY not in str(upstream.head)
        assert "sec-websocket-extensions" not in app.head.headers


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", f"model={MODEL}"),
        ("?model=", f"model={MODEL}"),
        ("?model=old-model", "model=new-model"),
        ("?model=another", "model=another"),
        ("?model=a%26b%3Dc%20d%0D%0A", "model=a%26b%3Dc+d%0D%0A"),
        ("?model=first&model=second", "model=first"),
        ("?api-version=2025-04-01-preview&deployment=another", "model=another"),
        ("?deployment=another&model=old-model", "model=new-model"),
        ("?intent=transcription", "intent=transcription"),
        (f"?model={MODEL}&intent=transcription", "intent=transcription"),
        (f"?model={MODEL}&intent=other", f"model={MODEL}"),
    ],
)
async def test_the_model_that_is_asked_for(text, query, asked):
    async with (
        scripted() as model,
        in_process(text(model.url)) as gateway,
        meeting(gateway, model, "/v1/realtime" + query) as (_, upstream),
    ):
        assert upstream.head.target == f"/v1/realtime?{asked}"


async def test_models_a_key_may_use(text):
    models = 'models = ["old-model", "gpt-realtime-2.1"]'
    async with scripted() as model:
        allowing = text(model.url).replace('id = "app"', f'id = "app"\n{models}')
        async with in_process(allowing) as gateway:
            for query in ("", "?model=old-model"):
                async with meeting(gateway, model, "/v1/realtime" + query) as (app, _):
                    await app.tell("session.update", session={"type": "realtime", "model": "another"})
                    assert (await app.event())["error"]["code"] == "model_not_allowed"
            for name in ("another", "OLD-MODEL", "old-model%20"):
                answer = await refused(gateway.address, f"/v1/realtime?model={name}")
                assert (answer.status, answer.error["code"]) == (403, "model_not_allowed")


async def test_the_upstream_that_knows_the_model(text):
    async with scripted() as first, scripted() as second:
        more = f'[[upstream]]\nname = "second"\nkind = "sim"\nurl = "{second.url}"\ndefault_model = "theirs"'
        async with in_process(text(first.url, more=more)) as gateway:
            async with meeting(gateway, second, "/v1/realtime?model=theirs") as (_, upstream):
                assert "authorization" not in upstream.head.headers
            async with meeting(gateway, first, "/v1/realtime?model=nobodys"):
                pass


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_a_refusal_of_the_upstream_reaches_the_client(text, status):
    async def handler(stream):
        await read_head(stream)
        body = f'{{"error":{{"message":"Incorrect API key: {UPSTREAM_KEY}"}}}}'
        await stream.send_all(
            f"HTTP/1.1 {status} No\r\nRetry-After: 17\r\nX-Theirs: 1\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    async with listening(handler) as url, in_process(text(url)) as gateway:
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (status, "upstream_refused")
        assert answer.headers["retry-after"] == "17"
        assert "x-theirs" not in answer.headers
        assert UPSTREAM_KEY.encode() not in answer.rest
        assert b"Incorrect" not in answer.rest


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 429 No\r\nRetry-After: \xe9\x80\r\nContent-Length: 0\r\n\r\n", 429),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 502),
        (b"", 502),
    ],
    ids=["redirect", "200", "599", "odd header", "no accept", "no HTTP", "nothing"],
)
async def test_upstreams_that_speak_something_else(text, said, status):
    async def handler(stream):
        await read_head(stream)
        await stream.send_all(said)

    async with listening(handler) as url, in_process(text(url)) as gateway:
        answer = await refused(gateway.address)
        assert answer.status == status


async def test_an_upstream_that_resets_the_handshake(text):
    async def handler(stream):
        await read_head(stream)
        reset(stream)

    async with listening(handler) as url, in_process(text(url)) as gateway:
        assert (await refused(gateway.address)).status == 502


async def test_an_upstream_that_greets_and_closes(text):
    """The client hears what there was to hear, then the upstream's own code."""

    async def handler(stream):
        head = await read_head(stream)
        early = frame(CREATED, masked=False) + frame(b"\x0f\xa0bye", 8, masked=False)
        await switch(stream, head, early)
        await trio.sleep_forever()

    async with listening(handler) as url, in_process(text(url)) as gateway, client(gateway.address) as app:
        events, end = await app.ended()
        assert [event["type"] for event in events] == ["session.created"]
        assert (end.code, end.reason) == (4000, "bye")


async def test_nobody_there(text):
    for url in ("ws://127.0.0.1:9/v1/realtime", "ws://no-such-host.invalid/v1/realtime"):
        async with in_process(text(url)) as gateway:
            answer = await refused(gateway.address)
            assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")


async def test_an_upstream_that_hangs_in_connect(text):
    # A backlog that is full: the kernel answers no further SYN.
    with trio.socket.socket() as full, trio.socket.socket() as one, trio.socket.socket() as two:
        await full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        async with trio.open_nursery() as nursery:
            for each in (one, two):
                nursery.start_soon(each.connect, ("127.0.0.1", port))
            async with in_process(text(f"ws://127.0.0.1:{port}/v1/realtime", more=SECONDS)) as gateway:
                assert (await refused(gateway.address)).status == 504
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web"])
async def test_an_upstream_that_hangs_in_the_handshake(text, said):
    async def handler(stream):
        await read_head(stream)
        await stream.send_all(said)
        await trio.sleep_forever()

    async with listening(handler) as url, in_process(text(url, more=SECONDS)) as gateway:
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["type"]) == (504, "server_error")


@pytest.mark.parametrize("leave", [reset, lambda stream: stream.socket.close()], ids=["reset", "end"])
async def test_a_client_that_leaves_ends_the_dial(text, leave):
    asked, gone = trio.Event(), trio.Event()

    async def handler(stream):
        await read_head(stream)
        asked.set()
        assert not await stream.receive_some(1)
        gone.set()

    async with listening(handler) as url, in_process(text(url)) as gateway:
        app = await trio.open_tcp_stream(*gateway.address)
        await app.send_all(upgrade("/v1/realtime", bearer()))
        with trio.fail_after(WAIT_S):
            await asked.wait()
            leave(app)
            await gone.wait()


async def test_a_key_that_is_gone(text, tmp_path):
    """The file is read at every dial, so that a new key needs no restart; without it nobody is dialled."""
    key = tmp_path / "key"
    key.write_text("sk-first\n")
    async with scripted() as model:
        filed = text(model.url).replace('{ env = "TEST_UPSTREAM_KEY" }', f'{{ file = "{key}" }}')
        async with in_process(filed) as gateway:
            for new in ("sk-first", "sk-second"):
                key.write_text(new)
                async with meeting(gateway, model) as (_, upstream):
                    assert upstream.head.headers["authorization"] == f"Bearer {new}"
            for spoil in (key.unlink, lambda: key.write_text("sk-third\r\nX-Evil: 1")):
                spoil()
                answer = await refused(gateway.address)
                assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
                assert str(key).encode() not in answer.rest


async def test_frames_before_the_answer(text):
    """A client that does not wait for its 101 is impolite; what it sends belongs to the session."""
    said = frame('{"type":"early"}')
    async with scripted() as model, in_process(text(model.url)) as gateway:
        stream = await trio.open_tcp_stream(*gateway.address)
        async with stream:
            await stream.send_all(upgrade("/v1/realtime", bearer()) + said)
            assert await (await model.next()).receive() == b'{"type":"early"}'
