"""A stage that judges what callers say, beside the ones that run tools and order voices."""

import base64
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from tests.daemon.kit import MODEL, running
from tests.daemon.lines import speaking
from tests.daemon.test_json_lines import RUN, says, text_of
from tests.sim.kit import silence, tone

TEXT = {"type": "realtime", "output_modalities": ["text"]}
TOOL = """
import trio
from rtpipe import Plugin, Tool, ToolCall

class Lookup(Plugin[None, None]):
    def tools(self) -> list[Tool]:
        return [Tool(name="lookup", description="For a test.", parameters={"type": "object"})]

    async def tool_call(self, call: ToolCall) -> str | None:
        return "found"
"""
CHAIN = ("lookup", "input-guardrail", "tool-dispatcher", "response-lock")


@pytest.fixture
def door(place, file, plugin):
    """Write a configuration of all three, the lock with the turns gated too, and of the guard's options."""
    environment = plugin(TOOL, "lookup")

    def write(**options):
        lines = "\n".join(
            f"{name} = {msgspec.json.encode(value).decode()}" for name, value in options.items()
        )
        more = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n[plugins.input-guardrail]\n{lines}\n'
        more += "[plugins.response-lock]\ngate_turns = true\n"
        return file(chain=CHAIN, listen="open = true", more=more), environment

    return write


@asynccontextmanager
async def classifier():
    """The URL of an HTTP server that allows, forbids, fails or says nothing, as the text tells it."""

    async def answer(stream):
        data = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some()
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                while len(data) < length:
                    data += await stream.receive_some()
                text, data = msgspec.json.decode(data[:length])["text"], data[length:]
                if "hang" in text:
                    await trio.sleep_forever()
                body = b'{"allowed": %s}' % (b"false" if "forbidden" in text else b"true")
                status = b"500 No" if "broken" in text else b"200 OK"
                await stream.send_all(
                    b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
                )

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/judge"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def calling(place):
    async with speaking(place, role="session", model=MODEL) as lines:
        await lines.until("session.created")
        await lines.tell("session.update", session=TEXT)
        await lines.until("session.updated")
        yield lines


async def answer_to(lines, words):
    """What the model says, and the types of what else was seen."""
    await says(lines, words)
    return await answer(lines)


async def answer(lines):
    seen = []
    while not text_of(seen):
        seen += await lines.until("response.done")
    assert not [each for each in seen if each["type"] == "error"]
    assert "function_call" not in str(seen)
    return text_of(seen)


async def test_typed_words_are_answered_refused_and_forgotten(door, place):
    path, environment = door(words=["secret"])
    async with running(path, *RUN, environment=environment) as gateway, calling(place) as lines:
        assert await answer_to(lines, "Hello") == "You said: Hello"
        # The refusal knows nothing of the conversation, so the model has nothing to repeat.
        assert "secret" not in await answer_to(lines, "the secret word")
        assert await answer_to(lines, "Hello again") == "You said: Hello again"
        found = 'The tool answered: {"status":"success","result":"found"}'
        assert await answer_to(lines, "call lookup {}") == found
        assert "secret" not in await answer_to(lines, "call lookup and tell the secret")
        await gateway.said("input_refused", times=2)
        assert "the secret word" not in gateway.err


@pytest.mark.parametrize(("policy", "refused"), [("refuse", True), ("allow", False)])
async def test_a_classifier_over_http(door, place, policy, refused):
    async with classifier() as url:
        options = {"classifier_url": url, "classifier_timeout_s": 0.3, "on_classifier_failure": policy}
        path, environment = door(**options)
        async with running(path, *RUN, environment=environment), calling(place) as lines:
            assert await answer_to(lines, "fine") == "You said: fine"
            assert "forbidden" not in await answer_to(lines, "forbidden")
            for failing in ("broken", "hang"):
                assert (failing not in await answer_to(lines, failing)) == refused


@pytest.mark.parametrize("bad", [True, False])
async def test_a_spoken_turn_is_judged_by_its_transcript(door, place, bad):
    # The simulated model transcribes what it hears as so many seconds of audio.
    path, environment = door(pattern="seconds" if bad else "minutes")
    async with running(path, *RUN, environment=environment) as gateway, calling(place) as lines:
        pcm = silence(400) + tone(600) + silence(800)
        for at in range(0, len(pcm), 4800):
            audio = base64.b64encode(pcm[at : at + 4800]).decode()
            await lines.tell("input_audio_buffer.append", audio=audio)
        said = await answer(lines)
        assert said.startswith("I heard ") != bad
        # Two stages gate turns, and there is one answer to one turn; what comes next is answered as ever.
        assert await answer_to(lines, "Hello") == "You said: Hello"
        if bad:
            await gateway.said("input_refused")


async def test_crossing_creates_of_two_clients_with_a_tool_each(door, place):
    """Client's creates, the dispatcher's and refusals at once: one voice, nothing lost."""
    path, environment = door(words=["secret"])
    async with (
        running(path, *RUN, environment=environment) as gateway,
        trio.open_nursery() as nursery,
    ):

        async def talk():
            async with calling(place) as lines:
                for words in ("call lookup {}", "the secret word", "Hello"):
                    await says(lines, words)
                seen = []
                # The call, the refusal, and the answer to the rest.
                while sum(each["type"] == "response.done" for each in seen) < 3:
                    seen += await lines.until("response.done")
                assert "secret" not in text_of(seen)
                assert not [each for each in seen if each["type"] == "error"]
                active = 0
                for each in seen:
                    active += {"response.created": 1, "response.done": -1}.get(each["type"], 0)
                    assert active in (0, 1)

        for _ in range(2):
            nursery.start_soon(talk)
        nursery.start_soon(gateway.said, "refused by input-guardrail", 2)
