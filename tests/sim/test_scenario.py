from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from rtpipe.sim import Scenario, ScenarioError, read_scenario
from tests.sim.kit import Client, connected, of_kind
from tests.sim.test_faults import CREATE, user
from tests.sim.test_server import ending, opened, receive, serving

EXAMPLE = read_scenario(Path(__file__).parents[2] / "config" / "scenario.toml")


def scenario(text: str, tmp_path: Path) -> Scenario:
    path = tmp_path / "script.toml"
    path.write_text(text)
    return read_scenario(path)


def said(response: dict[str, Any]) -> list[str]:
    return [part["text"] for item in response["output"] for part in item.get("content", ())]


async def say(client: Client, text: str) -> dict[str, Any]:
    return await client.say(text, output_modalities=["text"])


async def test_the_example() -> None:
    async with connected(scenario=EXAMPLE) as client:
        assert said(await say(client, "hello")) == ["Good morning, how can I help?"]
        weather = await say(client, "And the weather?")
        assert said(weather) == ["One moment."]
        calls = [(item["name"], item["arguments"]) for item in weather["output"][1:]]
        assert calls == [("get_weather", '{"city":"Bern"}'), ("get_forecast", '{"city": "Bern", "days"')]
        failed = await say(client, "please fail")
        assert failed["status"] == "failed"
        assert failed["status_details"]["error"]["code"] == "inference_rate_limit_exceeded"
        half = await say(client, "do half of it")
        assert (half["status"], half["status_details"]["reason"]) == ("incomplete", "content_filter")
        (cut,) = said(half)
        assert "This is a sentence of which only the first half is ever said.".startswith(cut)
        assert 0 < len(cut) < 60
        assert said(await say(client, "something else")) == ["You said: something else"]


async def test_the_fault_of_the_example() -> None:
    async with serving(scenario=EXAMPLE) as address, opened(address) as socket:
        for event in (CREATE, user("hang up")):
            await socket.send_message(msgspec.json.encode(event).decode())
        while (await receive(socket))["type"] != "rate_limits.updated":
            pass
        await socket.send_message(msgspec.json.encode(CREATE).decode())
        assert await ending(socket) == (1011, "as the script says")


async def test_slow_to_first_audio(autojump_clock: Any, tmp_path: Path) -> None:
    slow = scenario('[[reply]]\nnumber = 1\nsteps = [{ say = "Hm.", after_s = 7 }]\n', tmp_path)
    async with connected(scenario=slow, pace=1) as client:
        await client.send("response.create")
        await client.until("response.created")
        began = trio.current_time()
        await client.until("response.output_audio.delta")
        assert trio.current_time() - began == pytest.approx(7)


@pytest.mark.parametrize(
    ("end", "status"),
    [("max_output_tokens", "incomplete"), ("server_error", "failed"), ("a_new_code", "failed")],
)
async def test_endings(end: str, status: str, tmp_path: Path) -> None:
    script = scenario(
        f'[[reply]]\nnumber = 1\nsteps = [{{ say = "One two three." }}]\nend = "{end}"', tmp_path
    )
    async with connected(scenario=script) as client:
        events = await client.respond(output_modalities=["text"])
    details = events[-1]["response"]["status_details"]
    assert events[-1]["response"]["status"] == status
    assert (details.get("reason") or details["error"]["code"]) == end
    assert of_kind(events, "response.output_text.delta")


async def test_azure_deviates() -> None:
    async with serving(azure=True) as address, opened(address) as socket:
        await receive(socket)
        await socket.send_message("not JSON")
        assert msgspec.json.decode(await socket.get_message())["event_id"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("reply = 3", "reply: Expected `array`, got `int`"),
        ("[[reply]]\nnumber = 1\nstep = []", "reply[0]: Object contains unknown field `step`"),
        ("[[reply]]\nend = 'x'", "reply[0]: needs number or text, and not both"),
        ("[[reply]]\nnumber = 1\ntext = 'x'\nend = 'x'", "reply[0]: needs number or text, and not both"),
        ("[[reply]]\nnumber = 1", "reply[0]: says nothing to do: needs steps, end or fault"),
        ("[[reply]]\nnumber = 0\nend = 'x'", "reply[0].number: Expected `int` >= 1"),
        ("[[reply]]\nnumber = 1\nsteps = [{}]", "reply[0].steps[0]: needs say or call, and not both"),
        (
            "[[reply]]\nnumber = 1\nsteps = [{ say = 'x', arguments = 'y' }]",
            "reply[0].steps[0]: arguments belong to a call",
        ),
        ("[[reply]]\nnumber = 1\nfault = 'explode'", "reply[0]: 'explode' orders no fault"),
        ("faults = ['refuse 503']", "'refuse 503' concerns handshakes, not a session"),
        ("a = ", "not TOML"),
    ],
)
def test_a_mistake_is_one_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario(text, tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'script.toml'}: {told}")
    assert "\n" not in str(refused.value)
