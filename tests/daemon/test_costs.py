"""Money, through the daemon: sessions that share a budget, what was spent, and who may change it."""

from functools import partial

import msgspec
import pytest
import trio

from rtpipe.cli.main import main
from rtpipe.sim import SimOptions, serve
from tests.daemon.kit import client
from tests.daemon.lines import asked, reloadable
from tests.daemon.wire import WAIT_S, Ended

CREATE = b'{"type":"response.create"}'


@pytest.fixture
async def model(nursery):
    host, port = await nursery.start(partial(serve, SimOptions(pace=0, seed=1)))
    return f"ws://{host}:{port}/v1/realtime"


@pytest.fixture
def governed(file, place, model):
    """A daemon whose sessions are governed."""

    def make(**options):
        tables = '[plugins.cost-governor]\ngoodbye_usd = "0"\n' + "".join(
            f"[plugins.cost-governor.{name}]\n{text}\n" for name, text in options.items()
        )
        more = f'[admin]\nsocket = "{place}"\n{tables}'
        return reloadable(file(model, chain=["auth", "cost-governor"], more=more))

    return make


async def talk(address, most=10_000):
    """Ask for answers until the gateway ends the session; returns how many there were, and the close code."""
    answers = 0
    async with client(address) as app:
        try:
            await app.send(CREATE)
            while answers < most:
                event = msgspec.json.decode(await app.receive())
                if event["type"] == "response.done":
                    answers += 1
                    await app.send(CREATE)
                elif event["type"] == "error":
                    await trio.sleep(0.2)  # others have reserved what is left
                    await app.send(CREATE)
        except Ended as ended:
            return answers, ended.args[0]
    return answers, None


async def test_fifty_sessions_of_one_caller_share_a_budget(governed, place, capsys):
    # Ten times as dear as it is, so that a dollar is soon spent.
    dear = 'date = "2026-11-22"\ntext_in = "40"\naudio_in = "320"\naudio_out = "640"\ntext_out = "240"'
    caps = 'day_budget_usd = "1"\nmax_output_tokens = 200'
    options = {"caps": caps, 'prices."gpt-realtime-2.1"': dear}
    async with governed(**options) as gateway:
        ends = []

        async def one():
            ends.append(await talk(gateway.address))

        with trio.fail_after(6 * WAIT_S):
            async with trio.open_nursery() as callers:
                for _ in range(50):
                    callers.start_soon(one)
        costs = await asked(place, "/costs?by=session")
        governor = gateway.process.chain.stages[1].plugin
        bound = 1_000_000 + 50 * governor.worst_overshoot
        assert sum(row["micro_usd"] for row in costs["rows"]) == costs["total"]["micro_usd"]
        assert 700_000 < costs["total"]["micro_usd"] <= bound
        assert governor.worst_overshoot == 0
        assert {code for _, code in ends} == {1000}


async def test_what_was_spent_is_told_and_a_caller_forgotten(governed, place, capsys):
    async with governed() as gateway:
        await talk(gateway.address, most=2)
        for by in ("principal", "model", "modality", "session", "cycle"):
            answer = await asked(place, f"/costs?by={by}")
            assert answer["rows"], by
            assert sum(row["micro_usd"] for row in answer["rows"]) == answer["total"]["micro_usd"] > 0

        async def verb(*words):
            code = await trio.to_thread.run_sync(main, [*words, "--socket", str(place)])
            assert code == 0
            return capsys.readouterr().out

        assert "app" in await verb("costs")
        assert msgspec.json.decode(await verb("costs", "--json"))["total"]["uses"] >= 2
        assert (await verb("costs", "--csv")).splitlines()[0].startswith("name,usd,")
        assert "no longer name app" in await verb("forget", "app")
        told = await verb("costs")
        assert "(forgotten)" in told
        assert "app" not in told
        assert "sess_" not in await verb("costs", "--by", "session")


async def test_a_live_sessions_budget_is_raised(governed, place, capsys):
    async with governed() as gateway, client(gateway.address) as app:
        await app.receive()
        (session,) = (await asked(place, "/sessions"))["sessions"]
        words = ["limits", session["id"], "--budget-usd", "7", "--socket", str(place)]
        assert await trio.to_thread.run_sync(main, words) == 0
        assert "budget_usd = 7" in capsys.readouterr().out
        words[3] = "seven"
        assert await trio.to_thread.run_sync(main, words) == 1
        assert "budget_usd" in capsys.readouterr().err
        words[1] = "sess_none"
        assert await trio.to_thread.run_sync(main, words) == 1
        assert "no session of this id" in capsys.readouterr().err
