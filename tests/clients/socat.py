"""socat, which is all it takes to talk JSON lines."""

import json
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tests.clients import install
from tests.clients.rows import Row
from tests.clients.scene import Scene
from tests.daemon.kit import KEY
from tests.daemon.wire import WAIT_S
from tests.sim.kit import tool

Event = dict[str, Any]


async def socat(scene: Scene) -> list[Row]:
    """Run the snippet as it is, then its first line with turns that depend on what was answered.

    The model speaks no JSON lines, so there is nothing to compare with.
    """
    install.debian("socat")
    row = Row("socat", install.version_of("socat", "-V"), "JSON lines on a Unix socket")
    snippet = scene.gateway.snippet("socat")
    command = snippet.partition(" <<")[0]

    async def attempt(name: str, turn: Callable[[str], Awaitable[None]], argument: str) -> None:
        try:
            with trio.fail_after(WAIT_S):
                await turn(argument)
            row.ok.append(name)
        except Exception as exc:
            row.failed[name] = repr(exc)

    await attempt("text", _text, snippet)
    await attempt("tool", _tool, command)
    await attempt("wrong key", _wrong_key, command)
    await scene.recorder.take()
    return [row]


async def _text(snippet: str) -> None:
    done = await trio.run_process(["/bin/sh", "-c", snippet], capture_stdout=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["type"] == "rtpipe.welcome", events[0]
    assert _said(next(event for event in events if event["type"] == "response.done")) == "You said: Hello!"
    assert (events[-1]["type"], events[-1]["code"]) == ("rtpipe.closed", 1000), events[-1]


async def _tool(command: str) -> None:
    async with _Lines(command) as lines:
        await lines.tell("rtpipe.hello", key=KEY)
        session = {"type": "realtime", "output_modalities": ["text"], "tools": [tool("dice")]}
        await lines.tell("session.update", session=session)
        content = [{"type": "input_text", "text": 'call dice {"sides": 6}'}]
        item = {"type": "message", "role": "user", "content": content}
        await lines.tell("conversation.item.create", item=item)
        await lines.tell("response.create")
        (call,) = (await lines.until("response.done"))["response"]["output"]
        assert (call["name"], call["arguments"]) == ("dice", '{"sides": 6}'), call
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "4"}
        await lines.tell("conversation.item.create", item=output)
        await lines.tell("response.create")
        assert _said(await lines.until("response.done")) == "The tool answered: 4"
        await lines.end()
        assert (await lines.until("rtpipe.closed"))["code"] == 1000


async def _wrong_key(command: str) -> None:
    async with _Lines(command) as lines:
        await lines.tell("rtpipe.hello", key="sk-wrong")
        refused = await lines.until("rtpipe.refused")
        assert (refused["status"], refused["code"]) == (401, "invalid_api_key"), refused


def _said(done: Event) -> str:
    return done["response"]["output"][0]["content"][0]["text"]


class _Lines:
    """The command as a process, one event a line."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._buffer = b""

    async def __aenter__(self) -> "_Lines":
        self._process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", f"exec {self._command}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._process.kill()
        with trio.CancelScope(shield=True):
            await self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                await stream.aclose()

    async def tell(self, kind: str, **fields: Any) -> None:
        await self._process.stdin.send_all(json.dumps({"type": kind, **fields}).encode() + b"\n")

    async def end(self) -> None:
        """Say that there is nothing more to say."""
        await self._process.stdin.aclose()

    async def until(self, kind: str) -> Event:
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if not end:
                data = await self._process.stdout.receive_some()
                assert data, f"no {kind}"
                self._buffer += data
                continue
            self._buffer = rest
            event = json.loads(line)
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event
