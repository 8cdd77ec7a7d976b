"""Calls of every kind through a daemon in a process of its own: ``python through_the_daemon.py``.

A simulated model behind, OpenAI's Python client in front, one for each scene. Prints a line for each scene;
the first says how long audio stood still while a tool hung.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

STAGE = """
import trio
from rtpipe import Plugin, Tool, ToolCall

NAMES = ("slow", "never", "broken", "echo", "order")

class Example(Plugin[None, None]):
    def __init__(self, config, host):
        super().__init__(config, host)
        self.orders = 0

    def tools(self) -> list[Tool]:
        return [Tool(name=name, description="For a test.", parameters={"type": "object"}) for name in NAMES]

    async def tool_call(self, call: ToolCall) -> str | None:
        if call.name == "slow":
            await trio.sleep(4)
        elif call.name == "never":
            await trio.sleep_forever()
        elif call.name == "broken":
            raise RuntimeError("SELECT secret FROM users")
        elif call.name == "order":
            self.orders += 1
            return f"order {self.orders}"
        return call.arguments
"""
CONFIG = """
chain = ["example", "tool-dispatcher", "response-lock"]

[[listen]]
address = "127.0.0.1:0"
open = true

[[upstream]]
name = "sim"
kind = "sim"
url = "ws://127.0.0.1/v1/realtime"
default_model = "gpt-realtime-2.1"
"""
TEXT = {"type": "realtime", "output_modalities": ["text"]}


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, Path]]:
    """A daemon with the stage above; gives its address and the file with its log."""
    (folder / "example_stage.py").write_text(STAGE)
    info = folder / "example_stage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-stage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rtpipe.plugins]\nexample = example_stage:Example\n")
    (folder / "rtpipe.toml").write_text(CONFIG)
    log = folder / "log"
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "rtpipe.cli.main",
        "run",
        "--sim",
        "--config",
        str(folder / "rtpipe.toml"),
    ]
    with (
        log.open("w") as errors,
        subprocess.Popen(  # noqa: S603
            command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = re.search(r"ready at ws://(\S+?)/v1/realtime", process.stdout.readline())
            assert ready, log.read_text()
            yield ready[1], log
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


class Caller:
    """One session of OpenAI's client, and everything it was sent."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seen: list[tuple[float, Any]] = []

    async def say(self, words: str) -> None:
        content = [{"type": "input_text", "text": words}]
        await self.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        await self.connection.response.create()

    async def listen(self, until: str) -> str:
        """Take events until a response says something with *until* in it; returns what it said."""
        async with asyncio.timeout(60):
            async for event in self.connection:
                self.seen.append((time.monotonic(), event))
                assert event.type != "error", event
                said = self.said(event)
                if until in said:
                    return said
        raise AssertionError("the session ended")

    @staticmethod
    def said(event: Any) -> str:
        if event.type != "response.done" or not event.response.output:
            return ""
        content = event.response.output[0].content[0]
        return str(content.text or content.transcript)

    def saw_a_call(self) -> bool:
        return any("call_" in event.model_dump_json() for _, event in self.seen)


def logged(log: Path, text: str) -> str:
    """The log line with *text* in it."""
    (line,) = [line for line in log.read_text().splitlines() if text in line]
    return line


async def slow(caller: Caller, _: Path) -> str:
    """A 4 s tool, while the caller goes on talking with the model."""
    await caller.say("call slow")
    began = time.monotonic()
    await caller.say("a long story " * 8)
    await caller.listen(until="The tool answered")
    heard = [
        at for at, event in caller.seen if event.type == "response.output_audio.delta" and at < began + 4
    ]
    gaps = [after - before for before, after in zip([began, *heard], [*heard, began + 4], strict=True)]
    return f"{len(heard)} audio events while a tool hung for 4 s, the longest gap {max(gaps):.2f} s"


async def hold_on(caller: Caller, _: Path) -> str:
    """A 4 s tool, and a caller who waits."""
    await caller.say("call slow")
    began = time.monotonic()
    await caller.listen(until="The tool answered")
    first = next(at for at, event in caller.seen if event.type == "response.output_audio.delta")
    created = [event.response for _, event in caller.seen if event.type == "response.created"]
    assert [bool(each.metadata and "rtpipe_filler" in each.metadata) for each in created] == [
        False,
        True,
        False,
    ]
    return f"heard after {first - began:.1f} s, the answer afterwards"


async def never(caller: Caller, _: Path) -> str:
    await caller.connection.session.update(session=TEXT)
    await caller.say("call never")
    return await caller.listen(until="The tool answered")


async def broken(caller: Caller, log: Path) -> str:
    await caller.connection.session.update(session=TEXT)
    await caller.say("call broken")
    said = await caller.listen(until="The tool answered")
    assert not [event for _, event in caller.seen if "SELECT" in event.model_dump_json()]
    failure_id = re.search(r'"id":"(\w+)"', said)
    assert failure_id, said
    assert "SELECT secret FROM users" in logged(log, f"id {failure_id[1]}: ")
    return said.replace(failure_id[1], "…")


async def ten(caller: Caller, _: Path) -> str:
    await caller.connection.session.update(session=TEXT)
    await caller.say(" and ".join(f'call echo {{"n":{number}}}' for number in range(10)))
    said = await caller.listen(until="The tool answered")
    assert all(f'{{"n":{number}}}' in said for number in range(10)), said
    count = sum(event.type == "response.created" for _, event in caller.seen)
    return f"ten results in one answer, {count} responses in all"


async def thrice(caller: Caller, _: Path) -> str:
    await caller.connection.session.update(session=TEXT)
    await caller.say("call order and call order and call order")
    said = await caller.listen(until="The tool answered")
    return f"{said.count('order 1')} results of one order"


SCENES = (slow, hold_on, never, broken, ten, thrice)


async def play(address: str, log: Path) -> list[str]:
    client = AsyncOpenAI(base_url=f"http://{address}/v1", api_key="any")

    async def scene(function: Any) -> str:
        async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
            caller = Caller(connection)
            line = f"{function.__name__:<8} {await function(caller, log)}"
            assert not caller.saw_a_call()
            return line

    return await asyncio.gather(*[scene(function) for function in SCENES])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as (address, log):
        sys.stdout.write("\n".join(asyncio.run(play(address, log))) + "\n")


if __name__ == "__main__":
    main()
