"""Keys come out nowhere, and what callers write comes out as one harmless line."""

import json
import logging
import re
import tempfile
from pathlib import Path

import pytest

from tests.daemon.kit import (
    KEY_VARIABLE,
    bearer,
    client,
    listening,
    meeting,
    refused,
    running,
    scripted,
    simulated,
)
from tests.daemon.lines import ask, asked, speaking
from tests.daemon.wire import Head, get, knock, read_head
from tests.marked import CARD, leaked

MARK = "MARKED"
CLIENT_KEY = f"sk-{MARK}-of-the-client"
WRONG_KEY = f"sk-{MARK}-wrong"
UPSTREAM_KEY = f"sk-{MARK}-of-the-gateway"
DEBUG = '[log]\nlevel = "debug"'


async def whatever_comes(address, target="/v1/realtime", headers=()):
    """All that a caller gets to read."""
    answer = await knock(address, target, headers)
    if isinstance(answer, Head):
        return str(answer)
    events, end = await answer.ended()
    return f"{answer.head}{events}{end}"


@pytest.mark.parametrize("simulate", [True, False], ids=["own sim", "upstream"])
async def test_a_marked_key_in_no_output(file, simulate):
    offered = "realtime, openai-insecure-api-key."
    arguments = ["--sim", "--sim-pace", "0"] if simulate else []
    async with (
        simulated(api_keys=frozenset({UPSTREAM_KEY})) as model,
        running(
            file(model, chain=["auth", "response-lock"], key=CLIENT_KEY, more=DEBUG),
            *arguments,
            environment={KEY_VARIABLE: UPSTREAM_KEY},
        ) as gateway,
    ):
        read = ""
        for headers in (
            bearer(CLIENT_KEY),
            [("api-key", CLIENT_KEY)],
            [("Sec-WebSocket-Protocol", offered + CLIENT_KEY)],
        ):
            async with client(gateway.address, "/v1/realtime?model=m", headers) as app:
                read += f"{app.head}{await app.until('session.created')}"
                await app.tell("response.create", response={"output_modalities": ["text"]})
                read += str(await app.until("response.done"))
                await app.send("nonsense")
                read += str(await app.until("error"))
                await app.close(4000, "bye")
        for headers in (
            bearer(WRONG_KEY),
            [("api-key", WRONG_KEY)],
            [("Authorization", f"Basic {WRONG_KEY}")],
            [("Authorization", WRONG_KEY)],
            [*bearer(CLIENT_KEY), ("api-key", WRONG_KEY)],
            [("Sec-WebSocket-Protocol", offered + WRONG_KEY)],
            [("Sec-WebSocket-Protocol", offered + CLIENT_KEY), ("api-key", WRONG_KEY)],
        ):
            read += await whatever_comes(gateway.address, headers=headers)
        for query in (f"api-key={CLIENT_KEY}", f"token={CLIENT_KEY}", f"call_id={CLIENT_KEY}"):
            read += await whatever_comes(gateway.address, f"/v1/realtime?{query}", bearer(CLIENT_KEY))
        for target in (f"/v1/live?key={CLIENT_KEY}", "/healthz", f"/v1/realtime?key={CLIENT_KEY}"):
            read += str(await get(gateway.address, target, bearer(CLIENT_KEY)))
        read += str(await get(gateway.address, "/\x01bad", bearer(CLIENT_KEY)))
    assert "DEBUG" in gateway.err
    assert MARK not in gateway.out + gateway.err
    assert MARK not in read


async def test_an_upstream_that_repeats_our_key(file):
    async def handler(stream):
        head = await read_head(stream)
        key = head.headers["authorization"]
        await stream.send_all(
            f"HTTP/1.1 401 {key}\r\nWWW-Authenticate: {key}\r\nRetry-After: 1\r\n"
            f"Content-Length: {len(key)}\r\n\r\n{key}".encode()
        )

    environment = {KEY_VARIABLE: UPSTREAM_KEY}
    async with listening(handler) as url, running(file(url, more=DEBUG), environment=environment) as gateway:
        answer = await refused(gateway.address)
        assert answer.status == 401
    assert MARK not in gateway.out + gateway.err + str(answer)


NASTY = "\x1b[2J\x07\r\n2026-01-01 ERROR forged\x00\x7f\u2028\u202e\x9b31m"


async def test_log_injection(file):
    """Each of these is one line at most, and nothing in it plays with a terminal."""
    escaped = "%1b[2J%07%0d%0a2026-01-01%20ERROR%20forged%00%7f%e2%80%a8%e2%80%ae%c2%9b31m"
    models = 'models = ["gpt-realtime-2.1"]'
    async with scripted() as model:
        path = file(model.url, more=DEBUG)
        path.write_text(path.read_text().replace('id = "app"', f'id = "app"\n{models}'))
        async with running(path) as gateway:
            assert (await refused(gateway.address, f"/v1/realtime?model={escaped}")).status == 403
            assert (await refused(gateway.address, f"/v1/realtime?model=x&call_id={escaped}")).status == 404
            assert (await get(gateway.address, f"/{escaped}")).status == 404
            origin = [*bearer(), ("Origin", "\x1b[2J http://\x9b31m")]
            assert (await refused(gateway.address, headers=origin)).status in (400, 403)
            async with meeting(gateway, model) as (app, _):
                await app.tell(NASTY, event_id=NASTY)
                await app.send('{"type":"session.update","session":{"model":' + json.dumps(NASTY) + "}}")
                assert (await app.event())["error"]["code"] == "model_not_allowed"
                await app.send(b'{"' + NASTY.encode() + b'":1,"type":7}')
                await app.event()
                await app.close(4000, NASTY)
            async with meeting(gateway, model) as (app, upstream):
                await upstream.tell(NASTY, error=NASTY)
                await upstream.send(NASTY)
                assert [await app.receive() for _ in range(2)][1] == NASTY.encode()
                await upstream.close(4000, NASTY)
                await app.ended()
            await gateway.said("closed by upstream")
    said = gateway.out + gateway.err
    assert "forged" in said
    assert not [c for c in said if not c.isprintable() and c != "\n"]
    # Every line begins with a time, and none with the one that was written for us.
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in gateway.log)
    assert not [line for line in gateway.log if line.startswith("2026-01-01")]


def test_a_log_line_is_one_line():
    from rtpipe.daemon.logs import OneLineFormatter

    record = logging.LogRecord("n", logging.INFO, "p", 1, "a %s", (NASTY,), None)
    line = OneLineFormatter("%(message)s").format(record)
    assert line.isprintable()


def test_what_is_shown_is_found(file):
    """Of every daemon process of the tests, in what it says and in what it has written."""
    path = file()
    written = path.parent / "state" / "store.sqlite3"
    written.parent.mkdir()
    written.write_bytes(b"\0" + CLIENT_KEY.encode() + b"\0")
    token = "eyJhbGciOiJFUzI1NiJ9.e30.sig"
    said = f"Bearer {WRONG_KEY}; ek_{'a' * 40}; {token} and {CARD}, but not at risk-free or ek_1"
    assert len(leaked(path, said)) == 5
    assert leaked(path, said)[-1] == f"{CLIENT_KEY} in {written}"
    assert leaked(path.with_name("none.toml"), "nothing") == []


async def test_a_marked_card_in_no_output(file, tmp_path):
    """Said by the caller, repeated by the model, given as a reason: 0 hits wherever operators look."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        place = Path(folder) / "admin.sock"
        audit = tmp_path / "audit.jsonl"
        more = (
            f'[log]\nlevel = "debug"\nformat = "json"\n[admin]\nsocket = "{place}"\n[audit]\nfile = "{audit}"'
        )
        chain = ["auth", "response-lock"]
        async with (
            simulated(api_keys=frozenset({UPSTREAM_KEY})) as model,
            running(
                file(model, chain=chain, key=CLIENT_KEY, more=more), environment={KEY_VARIABLE: UPSTREAM_KEY}
            ) as gateway,
            speaking(place, role="tap") as tap,
        ):
            assert (await tap.next())["type"] == "rtpipe.welcome"
            shown = ""
            async with client(gateway.address, headers=bearer(CLIENT_KEY)) as app:
                await app.until("session.created")
                await app.tell("session.update", session={"type": "realtime", "instructions": CARD})
                content = [{"type": "input_text", "text": f"my card is {CARD}"}]
                item = {"type": "message", "role": "user", "content": content}
                await app.tell("conversation.item.create", item=item)
                await app.tell("response.create", response={"output_modalities": ["text"]})
                said = str(await app.until("response.done"))
                (session,) = (await asked(place, "/sessions"))["sessions"]
                for target in ("/sessions", f"/sessions/{session['id']}", "/plugins", "/metrics"):
                    shown += str((await ask(place, target)).rest)
                assert (await refused(gateway.address, headers=bearer(WRONG_KEY))).status == 401
                await app.close(4000, CARD)
            lines = []
            while "SessionClosed" not in str(lines[-1:]):
                lines.append(await tap.next())
            shown += json.dumps(lines)
    assert CARD in said
    shown += gateway.out + gateway.err + audit.read_text()
    assert "[card]" in shown
    assert "SessionClosed" in audit.read_text()
    assert CARD[:9] not in shown  # ids are random digits too: a shorter piece may stand in one
    assert CARD.replace(" ", "")[:9] not in shown
    assert MARK not in shown
    told = [json.loads(line) for line in gateway.log]
    assert {"fact", "fields"} <= set(next(each for each in told if "SessionOpened" in str(each)))
