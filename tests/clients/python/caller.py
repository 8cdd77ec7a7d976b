"""A long call by a client that is cut off somewhere, and goes on. It runs in the clients' environments.

After a cut the caller does what an application can: it waits until everything it had sent is known to have
come or not to have come, and says again what has not.
"""

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from turns import LONG, MATERIAL, SPEECH, chunks

Event = dict[str, Any]
Send = Callable[[Event], Awaitable[None]]
TEXT = {"output_modalities": ["text"]}
DICE = {
    "type": "function",
    "name": "dice",
    "description": "Rolls.",
    "parameters": {"type": "object", "properties": {}},
}
SESSION = {
    "type": "realtime",
    "tools": [DICE],
    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
}
LOST = "upstream_connection_lost"
UNTOLD_S = 5
"""How long one that does not count waits for a call that it may have missed."""
PARTING = 3
"""What it says at the end only to hear that somebody is there: two events each."""
SILENCE = bytes(48_000)
"""A second of it."""
CANCEL, TRUNCATE = "cancel again", "truncate again"
"""Ids of what is sent again after a cut, and may be refused then."""
VOICE = ""
"""The turn of an answer that nobody asked for by name: that to what was said aloud."""


def appending(send: Send) -> Callable[[bytes], Awaitable[None]]:
    """How to speak where nothing but events can be sent."""

    async def speak(pcm: bytes) -> None:
        for chunk in chunks(pcm):
            await send({"type": "input_audio_buffer.append", "audio": b64encode(chunk).decode()})

    return speak


async def through(listen: Awaitable[None], call: Awaitable[None]) -> None:
    """Run a call while its client listens, which is not to end before it."""
    listening, calling = asyncio.ensure_future(listen), asyncio.ensure_future(call)
    try:
        await asyncio.wait([listening, calling], return_when=asyncio.FIRST_COMPLETED)
        if not calling.done():
            listening.result()
            raise AssertionError("the connection was closed for good")
        calling.result()
    finally:
        for task in (listening, calling):
            task.cancel()


class Caller:
    """*send* takes an event, and may lose it; so does *speak* with PCM.

    *counts*: after a cut it is told everything it has missed; else an answer that had begun is over for it,
    for its end is not told.
    """

    def __init__(self, send: Send, speak: Callable[[bytes], Awaitable[None]], *, counts: bool) -> None:
        self._send = send
        self._aloud = speak
        self._counts = counts
        self._news = asyncio.Condition()
        self._resumed = -1
        self._heard: set[str] = set()
        self._configured: set[str] = set()
        self._updates = 0
        self._items: set[str] = set()
        self._sent: set[str] = set()
        self._spoken: list[str] = []
        """Items of the model's."""
        self._calls: dict[str, Event] = {}
        self._spoke = False
        self._committed = False
        self._truncated: set[str] = set()
        self._turns: dict[str, str] = {}
        """The turn of each answer whose beginning came over the connection that there is."""
        self._begun: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._sounding: set[str] = set()
        self._problem = ""

    # --- what it hears --------------------------------------------------------------------------------------

    async def hear(self, event: Event) -> None:
        """One server event."""
        async with self._news:
            if self._counts and event["event_id"] in self._heard:
                self._problem = f"{event['type']} came twice"
            self._heard.add(event["event_id"])
            self._learn(event)
            self._news.notify_all()

    def _learn(self, event: Event) -> None:
        answer = event.get("response_id") or event.get("response", {}).get("id")
        if answer is not None and event["type"] != "response.created" and answer not in self._turns:
            self._problem = f"{event['type']} of an answer that it cannot place"
            return
        match event["type"]:
            case "session.created":
                self._resumed += 1
                if not self._counts:
                    self._turns.clear()
            case "session.updated":
                self._configured.add(event["session"].get("instructions") or "")
            case "conversation.item.added":
                self._items.add(event["item"]["id"])
                if event["item"].get("role") == "assistant":
                    self._spoken.append(event["item"]["id"])
            case "conversation.item.done" if event["item"]["type"] == "function_call":
                self._calls[event["item"]["call_id"]] = event["item"]
            case "input_audio_buffer.committed":
                self._committed = True
            case "conversation.item.truncated":
                self._truncated.add(event["item_id"])
            case "response.created":
                turn = (event["response"].get("metadata") or {}).get("turn", VOICE)
                self._turns[answer] = turn
                self._begun[turn] += 1
                self._sounding.discard(turn)
            case "response.output_audio.delta":
                self._sounding.add(self._turns[answer])
            case "response.done":
                self._done(event["response"])
            case "error" if event["error"].get("event_id") == TRUNCATE:
                self._truncated.add(self._spoken[-1])  # it is shorter than that
            case "error" if event["error"].get("event_id") != CANCEL:
                self._problem = str(event["error"])

    def _done(self, response: Event) -> None:
        turn = self._turns[response["id"]]
        error = ((response.get("status_details") or {}).get("error") or {}).get("code")
        if error == LOST:
            return  # the gateway asks again
        if response["status"] not in ("completed", "cancelled"):
            self._problem = f"{turn} ended {response['status']}: {response.get('status_details')}"
        self._ended[turn] += 1
        if self._ended[turn] > 1:
            self._problem = f"{turn or 'what was said aloud'} was answered twice"

    # --- what it does ---------------------------------------------------------------------------------------

    async def call(self) -> None:
        """The whole call. Raises AssertionError for what must not happen."""
        await self._until(lambda: self._resumed >= 0)
        await self._known()
        await self._ask("how are you")
        await self._answered([VOICE], self._speak)
        await self._ask("this", {"type": "input_image", "image_url": MATERIAL["image"]})
        await self._tool()
        await self._cross()
        await self._beside()
        await self._interrupt()
        await self._ask("good bye")
        for _ in range(PARTING):
            await self._known()

    async def last(self, seconds: float) -> None:
        """A call for so long, over one connection."""
        end = asyncio.get_running_loop().time() + seconds
        await self._until(lambda: self._resumed >= 0)
        turn = 0
        while asyncio.get_running_loop().time() < end:
            turn += 1
            await self._ask(f"turn {turn}")
            await asyncio.sleep(0.1)
        if self._resumed:
            raise AssertionError("it had to connect again")

    async def _until(self, true: Callable[[], bool]) -> bool:
        """Wait for something, or a cut: whether it was not a cut."""
        resumed = self._resumed
        async with self._news:
            await self._news.wait_for(lambda: self._problem or true() or self._resumed > resumed)
        if self._problem:
            raise AssertionError(self._problem)
        return true()

    async def _known(self) -> None:
        """Wait until what was sent has been answered as far as it will be: the session's configuration waits
        for whatever waits in front of it."""
        self._updates += 1
        mark = f"Be brief. {self._updates}"
        while True:
            await self._send({"type": "session.update", "session": {**SESSION, "instructions": mark}})
            if await self._until(lambda: mark in self._configured):
                return

    def _is_over(self, turn: str) -> bool:
        """Answered, or an answer whose end is not told to one that does not count."""
        begun = self._begun[turn] > 0 or (turn == VOICE and self._committed)
        return self._ended[turn] > 0 or (not self._counts and begun and turn not in self._turns.values())

    async def _answered(self, turns: list[str], ask: Callable[[str], Awaitable[None]]) -> None:
        """Have turns answered; asked for once more when a cut has kept them from being begun."""
        while True:
            for turn in turns:
                if not self._begun[turn]:
                    await ask(turn)
            if await self._until(lambda: all(self._ended[turn] for turn in turns)):
                return
            await self._known()
            self._sent.clear()
            if all(self._is_over(turn) for turn in turns):
                return

    async def _create(self, item: Event) -> None:
        """Unless it is there, or on its way over the connection that there is."""
        if item["id"] not in self._items and item["id"] not in self._sent:
            self._sent.add(item["id"])
            await self._send({"type": "conversation.item.create", "item": item})

    async def _respond(self, turn: str, **response: Any) -> None:
        await self._send({"type": "response.create", "response": {"metadata": {"turn": turn}, **response}})

    async def _write(self, words: str, *more: Event) -> None:
        content = [{"type": "input_text", "text": words}, *more]
        item_id = "".join(filter(str.isalnum, words))[:12]
        await self._create({"id": item_id, "type": "message", "role": "user", "content": content})

    async def _ask(self, words: str, *more: Event) -> None:
        async def ask(_: str) -> None:
            await self._write(words, *more)
            await self._respond(words, **TEXT)

        await self._answered([words], ask)

    async def _cross(self) -> None:
        """Two creates at once; there is nothing left for the second to answer, and it says so."""

        async def ask(turn: str) -> None:
            await self._write("twice")
            await self._respond(turn, **TEXT)

        await self._answered(["first", "second"], ask)

    async def _speak(self, _: str) -> None:
        if self._spoke:
            await self._aloud(SILENCE)  # a part of what was said may have come: then that is the turn
            await self._known()
        self._spoke = True
        if not self._committed:
            await self._aloud(SPEECH)

    async def _tool(self) -> None:
        await self._ask('call dice {"sides": 6}')
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self._counts else UNTOLD_S):
                while not self._calls:
                    await self._until(lambda: bool(self._calls))
        if not self._calls:
            return
        (call,) = self._calls.values()
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "4"}

        async def answer(turn: str) -> None:
            await self._create({"id": turn, **output})
            await self._respond(turn, **TEXT)

        await self._answered(["four"], answer)

    async def _beside(self) -> None:
        content = [{"type": "input_text", "text": "beside"}]
        message = {"type": "message", "role": "user", "content": content}

        async def ask(turn: str) -> None:
            await self._respond(turn, conversation="none", input=[message], **TEXT)

        await self._answered(["beside"], ask)

    async def _interrupt(self) -> None:
        turn = "long"
        while True:
            if not self._begun[turn]:
                await self._write(LONG)
                await self._respond(turn)
            if await self._until(lambda: turn in self._sounding or self._ended[turn] > 0):
                break
            await self._known()
            self._sent.clear()
            if self._is_over(turn):
                break
        while not self._ended[turn]:
            begun = self._begun[turn]
            await self._send({"type": "response.cancel", "event_id": CANCEL})
            if self._is_over(turn):
                await self._known()
                break
            if not await self._until(lambda begun=begun: self._ended[turn] > 0 or self._begun[turn] > begun):
                await self._known()
        item_id = self._spoken[-1]
        while item_id not in self._truncated:
            truncate = {"item_id": item_id, "content_index": 0, "audio_end_ms": 50}
            await self._send({"type": "conversation.item.truncate", "event_id": TRUNCATE, **truncate})
            if not await self._until(lambda: item_id in self._truncated):
                await self._known()
