"""Against the simulated model, which keeps the rule."""

import base64
from typing import Any

import trio

from rtpipe import Event, Plugin
from rtpipe.testing import ChainHarness, SimOptions, sim_upstream
from rtpipe_response_lock import ResponseLock


class Asker(Plugin[None, None]):
    """A stage whose view the test uses to ask for responses."""


# --- the simulated model, which speaks in real time


def simulated(stages: dict[str, Any]) -> ChainHarness:
    return ChainHarness(stages, upstream=lambda nursery: sim_upstream(nursery, SimOptions(pace=1, seed=1)))


async def answers(chain: ChainHarness, count: int) -> tuple[list[str], list[str]]:
    """Have a client and a stage ask crosswise, wait, and return what the client saw: (ends, errors)."""
    for number in range(count):
        if number % 3 == 2:
            chain.session.view("asker").send_upstream(Event({"type": "response.create"}), audible=True)
        else:
            await chain.client.send({"type": "response.create"})
    await trio.sleep(25 * count)
    seen = chain.client.take()
    ends = [event["response"]["status"] for event in seen if event["type"] == "response.done"]
    return ends, [event["error"]["code"] for event in seen if event["type"] == "error"]


async def test_the_simulated_model_refuses_none(autojump_clock: Any) -> None:
    async with simulated({"asker": Asker, "response-lock": ResponseLock}) as chain:
        assert await answers(chain, 9) == (["completed"] * 9, [])
        chain.check_fates()
    async with simulated({"asker": Asker}) as chain:
        ends, errors = await answers(chain, 9)
        # What the lock is for. (The errors about the stage's creates are not the client's to see.)
        assert (ends, set(errors)) == (["completed"], {"conversation_already_has_active_response"})


async def test_speech_interrupts_and_what_waits_comes_after_the_answer_to_it(autojump_clock: Any) -> None:
    speech = base64.b64encode(b"\x00\x20" * 24_000).decode()
    silence = base64.b64encode(b"\x00\x00" * 24_000).decode()
    async with simulated({"response-lock": ResponseLock}) as chain:
        await chain.client.send({"type": "response.create"})
        await chain.client.send({"type": "input_audio_buffer.append", "audio": speech})
        # the answer was interrupted; this one begins, and the one that answers the speech is not made
        await chain.client.send({"type": "response.create"})
        await trio.sleep(60)
        await chain.client.send({"type": "input_audio_buffer.append", "audio": silence})
        await chain.client.send({"type": "response.create"})
        await trio.sleep(60)
        seen = chain.client.take()
        assert [event for event in seen if event["type"] == "error"] == []
        ends = [event["response"]["status"] for event in seen if event["type"] == "response.done"]
        assert ends == ["cancelled", "completed", "completed", "completed"]
