"""The wall clock of a whole daemon is set, a day ahead and two days back, while callers talk."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import trio

from tests.daemon.kit import KEY, Process, bearer, client, config, refused, started
from tests.daemon.wire import WebSocket, ask
from tests.faults.books import CAPS, billing, judge, turn
from tests.faults.machine import NotHereError

SECRETS = '[plugins.auth.client_secrets]\nsigning_key = { env = "TEST_SIGNING_KEY" }\n'
CHANGED = (" leg lost", " leg replaced", " leg parked", "no upstream for the time", " closed by upstream")
"""What the log says when a timer of a session has fired."""
PINGS_S = 1
"""The model is asked so often whether it is there, and must answer before the next time."""


async def leaps() -> str:
    """Nothing changes for who talks; what has a date, a client secret, goes by what the clock says."""
    with tempfile.TemporaryDirectory() as folder:
        file, clock = Path(folder) / "rtpipe.toml", Path(folder) / "clock"
        async with billing() as model:
            chain = ("auth", "response-lock", "cost-governor")
            text = config(Path(folder) / "state", model.url, chain=chain, more=CAPS + SECRETS)
            file.write_text(text.replace('kind = "sim"\n', f'kind = "sim"\nkeepalive_s = {PINGS_S}\n'))
            clock.write_text("+0")
            async with started(file, environment=_faked(clock)) as gateway:
                await gateway.said(" with chain ")
                async with client(gateway.address) as app:
                    assert await turn(app) == "completed"
                    secret = await _secret(gateway)
                    clock.write_text("+1d")
                    answer = await refused(gateway.address, headers=bearer(secret))
                    assert answer.error["code"] == "client_secret_expired", answer.error
                    await _talk(gateway, app)
                    clock.write_text("-1d")
                    await _talk(gateway, app)
                    answer = await refused(gateway.address, headers=bearer(secret))
                    assert answer.error["code"] == "client_secret_expired", answer.error
                    assert await _talk_as(gateway, await _secret(gateway)) == "completed"
                gateway.signal()
                assert await gateway.exited() == 0, gateway.err
            days = {line[:10] for line in gateway.log}
            assert len(days) == 3, days  # it believed it
            fired = [line for line in gateway.log if any(each in line for each in CHANGED)]
            assert not fired, fired
            assert "Traceback" not in gateway.err, gateway.err
            books = judge(Path(folder) / "state", model.bills)
    return f"a day ahead, two back: who talks talks on; a client secret expires once; {books}"


def _faked(clock: Path) -> dict[str, str]:
    """The environment of a process that reads the wall clock there, and the monotonic one where it is."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        raise NotHereError("there is no libfaketime")
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TEST_SIGNING_KEY": "0123456789abcdef" * 4,
    }


async def _secret(gateway: Process) -> str:
    head = f"POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    answer = await ask(gateway.address, f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
    return str(json.loads(answer.rest)["value"])


async def _talk(gateway: Process, app: WebSocket) -> None:
    """Who was there, for longer than a ping may go unanswered, and somebody new."""
    for _ in range(2):
        assert await turn(app) == "completed"
        await trio.sleep(PINGS_S)
    assert await _talk_as(gateway, KEY) == "completed"


async def _talk_as(gateway: Process, key: str) -> str:
    async with client(gateway.address, headers=bearer(key)) as app:
        return await turn(app)
