"""A reload acts on calls that are going on, however it is asked for; one that fails acts on nothing."""

from __future__ import annotations

import asyncio
import hashlib
import signal

import pytest
import trio
from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

from rtpipe.cli.main import main
from tests.daemon.kit import KEY, MODEL, bearer, client, refused, running
from tests.daemon.lines import asked
from tests.daemon.wire import WAIT_S

SILENT = '[plugins.cost-governor]\ngoodbye_usd = "0"\n'
CAPS = "[plugins.cost-governor.caps]\n"


@pytest.fixture
def governed(file, place):
    """A configuration whose sessions are governed."""

    def write(more="", watch=False):
        path = file(chain=["auth", "cost-governor"], more=f'{more}\n[admin]\nsocket = "{place}"\n')
        path.write_text(f"watch = {str(watch).lower()}\n{path.read_text()}")
        return path

    return write


class Operator:
    """Changes the file of a running daemon, and has it read again: by *how*."""

    def __init__(self, gateway, path, place, how):
        self.gateway, self.path, self.place, self.how = gateway, path, place, how

    async def change(self, old, new, *, says="reload: changed: "):
        text = self.path.read_text()
        assert text.count(old) == 1
        before = self.gateway.err.count(says)
        after = self.path.with_suffix(".new")
        after.write_text(text.replace(old, new))
        after.rename(self.path)
        if self.how == "signal":
            self.gateway.process.send_signal(signal.SIGHUP)
        elif self.how == "verb":
            words = ["reload", "--socket", str(self.place)]
            assert await trio.to_thread.run_sync(main, words) == (1 if "nothing has" in says else 0)
        await self.gateway.said(says, before + 1)

    async def caps_are(self, **caps):
        """Wait until the only session lives under these."""
        (session,) = (await asked(self.place, "/sessions"))["sessions"]
        with trio.fail_after(WAIT_S):
            while True:
                found = await asked(self.place, f"/limits?session={session['id']}", "POST")
                if caps.items() <= found["caps"].items():
                    return
                await trio.sleep(0.01)


async def answer(app):
    # Of text, because nobody waits until that has been heard.
    await app.tell("response.create", response={"output_modalities": ["text"]})
    await app.until("response.done")


async def is_at_its_limit(app):
    await app.tell("response.create")
    seen, end = await app.ended()
    assert "cost_limit_reached" in [event["error"]["code"] for event in seen if event["type"] == "error"]
    assert end.code == 1000


@pytest.mark.parametrize("how", ["signal", "verb", "watch"])
async def test_a_cap_that_is_raised_counts_for_a_call_that_is_going_on(governed, place, capfd, how):
    path = governed(f"{SILENT}{CAPS}max_responses = 1", watch=how == "watch")
    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        operator = Operator(gateway, path, place, how)
        async with client(gateway.address) as app:
            await answer(app)
            await operator.change("max_responses = 1", "max_responses = 2")
            assert "reload: changed: plugins.cost-governor.caps.max_responses: 1 -> 2; " in gateway.err
            assert "new plugins: none; 0 sessions keep the old chain" in gateway.err
            await operator.caps_are(max_responses=2)
            await operator.change(
                "max_responses = 2",
                'max_responses = 9\nbudget_usd = "x"',
                says="reload: nothing has changed: ",
            )
            await operator.caps_are(max_responses=2, budget_usd="5")
            await answer(app)
            await is_at_its_limit(app)
        gateway.err = gateway.err.replace("ERROR", "")  # it was meant
    capfd.readouterr()


async def test_the_limits_of_a_key_count_for_its_calls(governed, place):
    digest = hashlib.sha256(b"sk-of-another").hexdigest()
    key = f'[[plugins.auth.keys]]\nid = "other"\nsha256 = "{digest}"\nlimits = {{ max_responses = "1" }}'
    path = governed(f"{SILENT}{key}")
    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        operator = Operator(gateway, path, place, "signal")
        async with client(gateway.address, headers=bearer("sk-of-another")) as app:
            await answer(app)
            await operator.change('max_responses = "1"', 'max_responses = "2"')
            assert 'plugins.auth.keys[1].limits.max_responses: "1" -> "2"; ' in gateway.err
            await operator.caps_are(max_responses=2)
            await answer(app)
            await operator.change('max_responses = "2"', 'max_responses = "many"')
            await gateway.said("keeps those it has")
            await operator.caps_are(max_responses=2)
            await is_at_its_limit(app)


def call(base_url, begun, ended):
    """A call of OpenAI's client: says when it has begun, then the codes by which it ends."""

    async def talk():
        client = AsyncOpenAI(base_url=base_url, api_key=KEY)
        async with client.realtime.connect(model=MODEL) as connection:
            await connection.recv()
            await connection.response.create()
            while (await connection.recv()).type != "response.created":
                pass
            trio.from_thread.run_sync(begun.set)
            try:
                async for event in connection:
                    if event.type == "error":
                        ended.append(event.error.code)
            except ConnectionClosed as closed:
                ended.append(closed.rcvd.code if closed.rcvd else None)

    asyncio.run(asyncio.wait_for(talk(), WAIT_S))


@pytest.mark.parametrize("how", ["signal", "verb", "watch"])
async def test_the_kill_switch_ends_every_call_and_lets_nobody_in(governed, place, capfd, how):
    on, off = "kill_switch = true", "kill_switch = false"
    path = governed(f"[plugins.cost-governor]\n{off}", watch=how == "watch")
    async with running(path, "--sim", "--sim-pace", "1") as gateway:  # who speaks takes its time
        operator = Operator(gateway, path, place, how)
        host, port = gateway.address
        begun, ended = trio.Event(), []
        async with client(gateway.address) as idle, trio.open_nursery() as nursery:
            await idle.until("session.created")
            nursery.start_soon(trio.to_thread.run_sync, call, f"http://{host}:{port}/v1", begun, ended)
            with trio.fail_after(WAIT_S):
                await begun.wait()
            await operator.change(off, on)
            seen, end = await idle.ended()
            assert (seen[-1]["error"]["code"], end.code) == ("spending_stopped", 1013)
        assert ended == ["spending_stopped", 1013]
        answer_ = await refused(gateway.address)
        assert (answer_.status, answer_.error["code"]) == (503, "spending_stopped")
        assert answer_.headers["retry-after"] == "60"
        # What was being said is in the books.
        with trio.fail_after(WAIT_S):
            while not (await asked(place, "/costs"))["rows"]:  # noqa: ASYNC110 - books tell nobody of an entry
                await trio.sleep(0.01)
        await operator.change(on, off)
        async with client(gateway.address) as app:
            await app.until("session.created")
    capfd.readouterr()
