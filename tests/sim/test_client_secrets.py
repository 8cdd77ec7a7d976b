from __future__ import annotations

import time
from typing import Any

import pytest
import trio
import trio.testing
from openai.types.realtime import ClientSecretCreateResponse

from rtpipe.sim import SimOptions
from rtpipe.sim.client_secrets import ClientSecrets
from rtpipe.sim.errors import ClientError
from tests.sim.kit import _problems
from tests.sim.test_server import bearer, call, ending, joined, opened, receive, serving

SECRETS = "/v1/realtime/client_secrets"
BOUND = {"type": "realtime", "model": "gpt-realtime-2.1-mini", "instructions": "Be brief."}


async def test_a_secret_opens_a_session_as_it_was_bound() -> None:
    async with serving(api_keys=frozenset({"right"})) as address:
        before = int(time.time())
        status, made = await call(address, "POST", SECRETS, {"session": BOUND}, "Authorization: Bearer right")
        assert status == 200
        ClientSecretCreateResponse.model_validate(made)
        assert not _problems(made, ClientSecretCreateResponse, "response")
        assert made["value"].startswith("ek_")
        assert before + 600 <= made["expires_at"] <= time.time() + 600
        ways: list[dict[str, Any]] = [
            {"extra_headers": bearer(made["value"])},
            {"subprotocols": ["realtime", f"openai-insecure-api-key.{made['value']}"]},
        ]
        for settings in ways:
            async with opened(address, "/v1/realtime", **settings) as socket:
                session = (await receive(socket))["session"]
                assert session.items() >= BOUND.items()
                assert (
                    session.items()
                    >= (made["session"] | {"id": session["id"], "expires_at": session["expires_at"]}).items()
                )


@pytest.mark.parametrize("key", ["wrong", "ek_0123456789"])
async def test_only_a_key_makes_one(key: str) -> None:
    async with serving(api_keys=frozenset({"right"})) as address:
        status, body = await call(address, "POST", SECRETS, {}, f"Authorization: Bearer {key}")
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"expires_after": {"anchor": "created_at", "seconds": 9}}, "invalid_value"),
        ({"expires_after": {"seconds": 7201}}, "invalid_value"),
        ({"expires_after": {"anchor": "used_at"}}, "invalid_value"),
        ({"session": {"type": "realtime", "voice": "marin"}}, "unknown_parameter"),
        ({"sessions": {}}, "unknown_parameter"),
        ([], "invalid_value"),
    ],
)
async def test_what_cannot_be_bound(body: Any, code: str) -> None:
    async with serving() as address:
        status, answer = await call(address, "POST", SECRETS, body)
    assert (status, answer["error"]["code"]) == (400, code)


async def test_a_secret_expires(autojump_clock: trio.testing.MockClock) -> None:
    secrets = ClientSecrets(SimOptions(seed=1))
    made = secrets.make(b'{"expires_after": {"seconds": 10}}')
    found = secrets.find(made["value"])
    assert found is not None
    await trio.sleep(9.9)
    assert not found.expired
    await trio.sleep(0.1)
    assert found.expired
    with pytest.raises(ClientError):
        secrets.make(b"not JSON")


async def test_an_expired_secret_opens_the_socket_and_fails_at_the_first_event() -> None:
    clock = trio.current_time
    async with serving() as address:
        _, made = await call(address, "POST", SECRETS, {"expires_after": {"seconds": 10}})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rtpipe.sim.client_secrets.trio.current_time", lambda: clock() + 10)
            async with joined(address, "/v1/realtime", extra_headers=bearer(made["value"])) as socket:
                await socket.send_message('{"type": "response.create"}')
                error = (await receive(socket))["error"]
                assert error["message"] == "Ephemeral token expired"
                assert await ending(socket) == (3000, "invalid_request_error.invalid_api_key")
