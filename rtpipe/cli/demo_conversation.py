"""The conversation of ``rtpipe demo``, and how it is told."""

import base64
import math
import struct
import zlib
from typing import Any

import msgspec

from rtpipe.api import facts
from rtpipe.api.facts import Fact
from rtpipe.daemon.daemon import Ready
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Server
from rtpipe.protocol.events import call_id_of, error_of, response_of
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.dialer import dial

Json = dict[str, Any]
_TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Narrator:
    """Prints what happens: who said what, and what a stage did about it."""

    def chapter(self, title: str) -> None:
        print(f"\n{title}")

    def says(self, who: str, what: str) -> None:
        print(f"  {who:<7} {what}")

    def stage(self, name: str, what: str) -> None:
        print(f"  {'▸':<7} {name}: {what}")

    def fact(self, fact: Fact) -> None:
        """What became of something, as the chain's stages and the host recorded it."""
        match fact:
            case facts.SessionOpened():
                self.stage("host", f"session opened for principal {fact.principal}, model {fact.model}")
            case facts.Waited():
                self.stage(fact.stage, f"held {fact.type} for {fact.duration_s:.2f} s, then {fact.outcome}")
            case facts.Refused():
                self.stage(fact.stage, f"refused: {fact.message}")
            case facts.ResponseEnded():
                spoken = ", ".join(f"{v:g} {k.replace('_', ' ')}" for k, v in fact.usage.items() if v)
                self.stage("host", f"response {fact.status} in {fact.duration_s:.2f} s ({spoken})")
            case facts.Spent():
                self.stage("costs", f"{fact.micro_usd / 1e6:.6f} USD, at the prices of {fact.model}")
            case facts.SessionClosed():
                self.stage("host", f"session closed by {fact.cause} with {fact.code}")


class Caller:
    """A client that waits for answers and keeps what it heard."""

    def __init__(self, connection: Connection, narrator: Narrator) -> None:
        self.connection = connection
        self.errors = 0
        self._narrator = narrator

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send(msgspec.json.encode({"type": kind, **fields}))

    async def says(self, *content: Json) -> None:
        item = {"type": "message", "role": "user", "content": list(content)}
        await self.send(Client.ITEM_CREATE, item=item)

    async def until(self, *kinds: str) -> Json:
        """The next event of one of these types; errors are told on the way."""
        while True:
            event: Json = msgspec.json.decode(await self.connection.receive())
            if event["type"] == Server.ERROR:
                self.errors += 1
                self._narrator.says("error", f"{error_of(event)[0]}")
            if event["type"] in kinds:
                return event

    async def answer(self) -> Json:
        """Wait for a response to end and tell what it said."""
        response = response_of(await self.until(Server.RESPONSE_DONE)) or {}
        for item in response.get("output", ()):
            if item["type"] == "function_call":
                self._narrator.says("model", f"calls {item['name']}({item['arguments']})")
            for part in item.get("content", ()):
                self._narrator.says("model", part.get("transcript") or part.get("text") or "…")
        return response


async def converse(ready: Ready, key: str, narrator: Narrator) -> int:
    """Drive the conversation through the daemon; returns 0 if all of it went well."""
    stages = " · ".join(stage.name for stage in ready.process.chain.stages) or "(no stages)"
    place = next(address for address in ready.addresses if address.startswith("ws://"))
    print(f"daemon  {place}\nchain   client → {stages} → simulated model")
    headers = [("Authorization", f"Bearer {key}")]
    connection = await dial(f"{place}?model=gpt-realtime-2.1", headers=headers)
    caller = Caller(connection, narrator)
    try:
        await caller.until(Server.SESSION_CREATED)
        session = next(iter(ready.process.sessions.values()))
        for chapter in (_text, _audio, _image, _tool, _crossing):
            await chapter(caller, narrator)
        narrator.chapter("What passed")
        for name, lane in (("client", session.lane(UPSTREAM)), ("server", session.lane(DOWNSTREAM))):
            await lane.settle()
            tally = lane.tally
            fates = ", ".join(f"{count} {fate}" for fate, count in sorted(tally.fates.items()))
            print(f"  {tally.came} {name} events: {fates}")
    except ConnectionLost as loss:
        narrator.says("error", f"the connection was lost: {loss}")
        return 1
    finally:
        await connection.close(1000, "")
    await ready.process.empty()
    return 1 if caller.errors else 0


async def _text(caller: Caller, narrator: Narrator) -> None:
    narrator.chapter("1  Text")
    await caller.send(Client.SESSION_UPDATE, session={"type": "realtime", "output_modalities": ["text"]})
    await caller.until(Server.SESSION_UPDATED)
    narrator.says("you", "Hello from the demo.")
    await caller.says({"type": "input_text", "text": "Hello from the demo."})
    await caller.send(Client.RESPONSE_CREATE)
    await caller.answer()


async def _audio(caller: Caller, narrator: Narrator) -> None:
    narrator.chapter("2  Audio")
    audio = {"input": {"turn_detection": None}}
    session = {"type": "realtime", "output_modalities": ["audio"], "audio": audio}
    await caller.send(Client.SESSION_UPDATE, session=session)
    await caller.until(Server.SESSION_UPDATED)
    narrator.says("you", "(1.5 seconds of a hum)")
    for start in range(15):
        await caller.send(Client.AUDIO_APPEND, audio=_hum(start * 0.1, 0.1))
    await caller.send(Client.AUDIO_COMMIT)
    await caller.send(Client.RESPONSE_CREATE)
    await caller.answer()


async def _image(caller: Caller, narrator: Narrator) -> None:
    narrator.chapter("3  Image")
    narrator.says("you", "What do you see? (a PNG)")
    url = f"data:image/png;base64,{base64.b64encode(_png(320, 200)).decode()}"
    await caller.says(
        {"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What do you see?"}
    )
    await caller.send(Client.RESPONSE_CREATE, response={"output_modalities": ["text"]})
    await caller.answer()


async def _tool(caller: Caller, narrator: Narrator) -> None:
    narrator.chapter("4  Tool call")
    await caller.send(Client.SESSION_UPDATE, session={"type": "realtime", "tools": [_TOOL]})
    await caller.until(Server.SESSION_UPDATED)
    words = 'call get_weather {"city":"Oslo"}'
    narrator.says("you", words)
    await caller.says({"type": "input_text", "text": words})
    await caller.send(Client.RESPONSE_CREATE)
    called = await caller.until(Server.OUTPUT_ITEM_DONE)
    await caller.answer()
    output = '{"status":"success","result":"4 °C and clear"}'
    narrator.says("you", f"(the tool) {output}")
    item = {"type": "function_call_output", "call_id": call_id_of(called), "output": output}
    await caller.send(Client.ITEM_CREATE, item=item)
    await caller.send(Client.RESPONSE_CREATE)
    await caller.answer()


async def _crossing(caller: Caller, narrator: Narrator) -> None:
    narrator.chapter("5  Two crossing response.create")
    narrator.says("you", "asks for an answer, and at once for another")
    await caller.says({"type": "input_text", "text": "One question, two requests."})
    await caller.send(Client.RESPONSE_CREATE, event_id="first")
    await caller.send(Client.RESPONSE_CREATE, event_id="second")
    await caller.answer()
    if not caller.errors:
        await caller.answer()


def _hum(start_s: float, seconds: float) -> str:
    """PCM of 24 kHz, 16 bit, base64."""
    rate = 24_000
    times = (start_s + n / rate for n in range(int(seconds * rate)))
    samples = [int(9000 * math.sin(2 * math.pi * 180 * t)) for t in times]
    return base64.b64encode(struct.pack(f"<{len(samples)}h", *samples)).decode()


def _png(width: int, height: int) -> bytes:
    """A plain grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (b"\0" + b"\x80" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
