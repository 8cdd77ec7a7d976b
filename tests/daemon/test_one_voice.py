"""Creates that cross, through the daemon: none is refused, none is lost."""

import base64
import tempfile
from pathlib import Path

import msgspec
import pytest
import trio

from tests.daemon.kit import MODEL, client, running
from tests.daemon.lines import speaking
from tests.sim.kit import silence, tone

WRITERS, CREATES = 4, 25
TEXT = {"type": "realtime", "output_modalities": ["text"]}


async def test_no_create_is_refused_or_lost(file):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        place = Path(folder) / "rtpipe.sock"
        listen = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n'
        lock = file(chain=["response-lock"], listen="open = true", more=listen)
        ends = {}

        async def write(number: int) -> None:
            async with speaking(place, role="session", model=MODEL) as lines:
                await lines.tell("session.update", session=TEXT)
                for place_ in range(CREATES):
                    names = {} if place_ % 3 else {"event_id": f"c{place_}"}
                    await lines.tell("response.create", response={"metadata": {"n": str(place_)}}, **names)
                seen = []
                while sum(each["type"] == "response.done" for each in seen) < CREATES:
                    seen += await lines.until("response.done")
                ends[number] = seen

        async with running(lock, "--sim", "--sim-pace", "0"), trio.open_nursery() as nursery:
            for number in range(WRITERS):
                nursery.start_soon(write, number)
    for seen in ends.values():
        assert not [each for each in seen if each["type"] == "error"]
        done = [each["response"] for each in seen if each["type"] == "response.done"]
        assert [each["metadata"] for each in done] == [{"n": str(n)} for n in range(CREATES)]
        running_ = 0
        for each in seen:
            running_ += {"response.created": 1, "response.done": -1}.get(each["type"], 0)
            assert running_ in (0, 1)
    assert len(ends) == WRITERS


TOOL = """
from rtpipe import Plugin, Tool, ToolCall

class Lookup(Plugin[None, None]):
    def tools(self) -> list[Tool]:
        return [Tool(name="lookup", description="For a test.", parameters={"type": "object"})]

    async def tool_call(self, call: ToolCall) -> str | None:
        return "found"
"""
SPOKEN = base64.b64encode(silence(400) + tone(600) + silence(800)).decode()


def voices(seen):
    """How often a response began; at no time were there two."""
    active = began = 0
    for each in seen:
        began += each["type"] == "response.created"
        active += {"response.created": 1, "response.done": -1}.get(each["type"], 0)
        assert active in (0, 1)
    return began


@pytest.mark.parametrize("gated", [False, True])
async def test_websockets_tools_and_the_callers_voice_at_once(file, plugin, gated):
    """Creates of a client's, the dispatcher's for its results, and the model's own answers to speech."""
    environment = plugin(TOOL, "lookup")
    more = f"[plugins.response-lock]\ngate_turns = {str(gated).lower()}\n"
    chain = ["lookup", "tool-dispatcher", "response-lock"]
    lock = file(chain=chain, listen="open = true", more=more)
    finished = []

    async def write(gateway) -> None:
        async with client(gateway.address, headers=[]) as socket:
            seen, asked = [], {f"c{number}" for number in range(6)}

            async def hear() -> None:
                while asked or seen[-1]["type"] != "response.done":
                    seen.append(msgspec.json.decode(await socket.receive()))
                    if seen[-1]["type"] == "response.created":
                        metadata = seen[-1]["response"]["metadata"] or {}
                        asked.discard(metadata.get("n"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear)
                await socket.tell("session.update", session=TEXT)
                for number in range(6):
                    words = "call lookup {}" if number % 2 else "Hello"
                    item = {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": words}],
                    }
                    await socket.tell("conversation.item.create", item=item)
                    await socket.tell("response.create", response={"metadata": {"n": f"c{number}"}})
                    await socket.tell("input_audio_buffer.append", audio=SPOKEN)
            assert not [each for each in seen if each["type"] == "error"]
            assert "call_" not in str([each for each in seen if "function" in each["type"]])
            assert voices(seen) >= 6
            finished.append(sum(each["type"] == "input_audio_buffer.committed" for each in seen))

    async with (
        running(lock, "--sim", "--sim-pace", "0", environment=environment) as gateway,
        trio.open_nursery() as nursery,
    ):
        for _ in range(WRITERS):
            nursery.start_soon(write, gateway)
    assert len(finished) == WRITERS
    assert all(finished)  # there were turns in between
