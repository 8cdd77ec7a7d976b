"""What was granted may be taken away: whoever was let in by it leaves, everybody else stays."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path

import msgspec
import pytest
import trio
from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

from rtpipe.cli.main import main
from tests.daemon.kit import KEY, MODEL, bearer, client, refused, running
from tests.daemon.lines import ask, speaking
from tests.daemon.wire import WAIT_S
from tests.daemon.wire import ask as http

OTHER = "sk-of-another-client"
SHOWN = "do-not-show-me"
SECRETS = 'client_secrets]\nsigning_key = { env = "TEST_SIGNING_KEY" }'


@pytest.fixture(autouse=True)
def signing_key(monkeypatch):
    monkeypatch.setenv("TEST_SIGNING_KEY", f"{SHOWN}-" + "k" * 32)


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        yield Path(folder)


def entry(name, key, more=""):
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f'[[plugins.auth.keys]]\nid = "{name}"\nsha256 = "{digest}"\n{more}\n'


def configuration(place, *entries, options=""):
    return (
        f"{''.join(entries)}[plugins.auth.{options}\n" if options else "".join(entries)
    ) + f'[admin]\nsocket = "{place}/admin.sock"\n[[listen]]\naddress = "unix:{place}/lines.sock"\n'


def call(base_url, key, begun, ended):
    """A call of OpenAI's client: says when it has begun, then the codes by which it ends."""

    async def talk():
        client = AsyncOpenAI(base_url=base_url, api_key=key)
        async with client.realtime.connect(model=MODEL) as connection:
            await connection.recv()
            trio.from_thread.run_sync(begun.set)
            try:
                async for event in connection:
                    if event.type == "error":
                        ended.append(event.error.code)
                ended.append(1000)
            except ConnectionClosed as closed:
                ended.append(closed.rcvd.code if closed.rcvd else None)

    asyncio.run(asyncio.wait_for(talk(), WAIT_S))


async def test_a_revoked_key_ends_a_live_call_of_openais_client(file, place, capfd):
    key = f"rtp_sk_{SHOWN}"
    path = file(more=configuration(place, entry("kiosk", key)))
    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        host, port = gateway.address
        begun, ended = trio.Event(), []
        async with client(gateway.address) as other:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    trio.to_thread.run_sync, call, f"http://{host}:{port}/v1", key, begun, ended
                )
                with trio.fail_after(WAIT_S):
                    await begun.wait()
                words = ["keys", "revoke", "kiosk", "--config", str(path)]
                assert await trio.to_thread.run_sync(main, words) == 0
            assert ended == ["credentials_revoked", 3000]
            answer = await refused(gateway.address, headers=bearer(key))
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
            # Another caller's goes on.
            await other.until("session.created")
            await other.tell("input_audio_buffer.clear")
            await other.until("input_audio_buffer.cleared")
        assert await trio.to_thread.run_sync(main, words) == 1
    async with running(path, "--sim", "--sim-pace", "0") as gateway:  # for good
        assert (await refused(gateway.address, headers=bearer(key))).status == 401
    out, err = capfd.readouterr()
    assert "revoked the key of kiosk whose sha256 begins with" in out
    assert "No key of 'kiosk' with such a hash is let in." in err
    assert SHOWN not in out + err + gateway.out + gateway.err


async def test_a_reload_ends_what_a_removed_key_opened(file, place):
    gone = entry("gone", OTHER, 'roles = ["session", "tap", "tools"]')
    path = file("ws://127.0.0.1:9/", more=configuration(place, gone))
    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        lines = {"key": OTHER, "version": 1}
        async with (
            client(gateway.address, headers=bearer(OTHER)) as app,
            client(gateway.address) as other,
            speaking(place / "lines.sock", role="tap", **lines) as tap,
            speaking(place / "lines.sock", role="tools", **lines) as tools,
            speaking(place / "lines.sock", role="session", **lines) as session,
        ):
            for each in (tap, tools, session):
                await each.until("rtpipe.welcome")
            await app.until("session.created")
            path.write_text(path.read_text().replace(gone, ""))
            assert (await ask(place / "admin.sock", "/reload", "POST")).status == 200
            seen, end = await app.ended()
            assert seen[-1]["error"]["code"] == "credentials_revoked"
            assert end.code == 3000
            await tap.rest()  # it ends; what it was being sent just then may be cut
            for each in (tools, session):
                assert (await each.rest())[-1] == {
                    "type": "rtpipe.closed",
                    "code": 3000,
                    "reason": "invalid_request_error.credentials_revoked",
                }
            await other.until("session.created")
            await other.tell("input_audio_buffer.clear")
            await other.until("input_audio_buffer.cleared")


# --- client secrets


async def minted(address, key=KEY, **asked):
    body = msgspec.json.encode(asked)
    head = (
        f"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"OpenAI-Safety-Identifier: visitor\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return await http(address, head.encode() + body)


async def test_a_page_uses_a_client_secret_as_a_subprotocol(file, place):
    path = file(listen='origins = ["https://app.example"]', more=configuration(place, options=SECRETS))
    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        session = {
            "type": "realtime",
            "model": MODEL,
            "instructions": "Be brief.",
            "output_modalities": ["text"],
        }
        answer = await minted(gateway.address, session=session)
        assert answer.status == 200, answer.rest
        secret = msgspec.json.decode(answer.rest)["value"]
        offered = ("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{secret}")
        origin = ("Origin", "https://app.example")
        async with client(gateway.address, headers=[offered, origin]) as page:
            created = (await page.until("session.created"))[-1]["session"]
            assert (created["instructions"], created["output_modalities"]) == ("Be brief.", ["text"])
        assert (await refused(gateway.address, headers=[offered, ("Origin", "https://evil")])).status == 403
        assert (await minted(gateway.address, "wrong")).status == 401
        assert secret not in gateway.out + gateway.err
    assert SHOWN not in gateway.out + gateway.err


async def test_openais_client_makes_one_and_connects_with_it(file, place):
    path = file(more=configuration(place, options=SECRETS))

    async def talk(base_url):
        backend = AsyncOpenAI(base_url=base_url, api_key=KEY)
        made = await backend.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 60},
            session={"type": "realtime", "model": MODEL, "instructions": "Be brief."},
        )
        assert made.session.instructions == "Be brief."
        async with AsyncOpenAI(base_url=base_url, api_key=made.value).realtime.connect(model=MODEL) as page:
            return (await page.recv()).session.instructions

    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        host, port = gateway.address
        talking = talk(f"http://{host}:{port}/v1")
        said = await trio.to_thread.run_sync(lambda: asyncio.run(asyncio.wait_for(talking, WAIT_S)))
    assert said == "Be brief."
