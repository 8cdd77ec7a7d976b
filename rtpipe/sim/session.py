"""One session with the simulated model, over any pair of receive and send."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from . import config, wire
from .answers import Settings
from .conversation import Conversation, Item, client_item, decode_audio
from .errors import ClientError
from .ids import Ids
from .options import SimOptions
from .responses import Request, Response
from .speech import MIN_COMMIT_MS, Detected, InputAudioBuffer
from .usage import Segment, transcription_usage

DEFAULT_MODEL = "gpt-realtime-2.1"

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[str | bytes | None]]
Send = Callable[[str], Awaitable[None]]

_ENDINGS = (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError)


async def run_session(
    receive: Receive, send: Send, options: SimOptions | None = None, *, model: str = DEFAULT_MODEL
) -> None:
    """Serve one client until it is gone: `receive` returns None, or either callable raises trio's
    EndOfChannel, ClosedResourceError or BrokenResourceError. Then everything the session started ends."""
    try:
        async with trio.open_nursery() as nursery:
            session = SimSession(send, nursery, options or SimOptions(), model=model)
            await session.open()
            while (message := await receive()) is not None:
                await session.handle(message)
            nursery.cancel_scope.cancel()
    except* _ENDINGS as gone:
        log.debug("the client is gone: %r", gone.exceptions)


class SimSession:
    """Takes client text in, emits server text through `send`. Responses run as tasks of `nursery`."""

    def __init__(self, send: Send, nursery: trio.Nursery, options: SimOptions, *, model: str) -> None:
        self._send = send
        self._sending = trio.Lock()
        self._nursery = nursery
        self._pace = options.pace
        self._ids = Ids(options.seed)
        expires_at = int(time.time()) + config.SESSION_SECONDS
        self._config = config.new_session(self._ids.new("sess"), model, expires_at)
        self._conversation = Conversation(self._ids.new("conv"))
        self._buffer = InputAudioBuffer()
        self._next_item_id: str | None = None  # of the speech being heard
        self._has_spoken = False
        self._active: Response | None = None
        self._out_of_band: dict[str, Response] = {}
        self._previous_context: list[Segment] = []
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "session.update": self._session_update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._item_create,
            "conversation.item.delete": self._item_delete,
            "conversation.item.retrieve": self._item_retrieve,
            "conversation.item.truncate": self._item_truncate,
            "response.create": self._response_create,
            "response.cancel": self._response_cancel,
        }

    async def open(self) -> None:
        await self.emit({"type": "session.created", "session": self._config})

    async def handle(self, message: str | bytes) -> None:
        """Do what one client event asks. Returns when its direct answer is sent; a response goes on alone."""
        event: dict[str, Any] = {}
        try:
            event = wire.decode(message)
            wire.check(event)
            await self._handlers[event["type"]](event)
        except ClientError as error:
            event_id = event.get("event_id")
            await self.emit(error.event(event_id if isinstance(event_id, str) else None))

    async def emit(self, *events: dict[str, Any]) -> None:
        """Send events with nothing in between. Waits for a slow client: nothing is queued here."""
        async with self._sending:
            for event in events:
                stamped = {"type": event["type"], "event_id": self._ids.new("event")} | event
                await self._send(msgspec.json.encode(stamped).decode())

    async def _session_update(self, event: dict[str, Any]) -> None:
        self._config = config.updated(self._config, event["session"], has_spoken=self._has_spoken)
        await self.emit({"type": "session.updated", "session": self._config})

    # --- items

    async def _item_create(self, event: dict[str, Any]) -> None:
        item = client_item(event["item"], self._ids, "item")
        previous = self._conversation.insert(item, event.get("previous_item_id"))
        await self._show(item, previous)

    async def _show(self, item: Item, previous: str | None) -> None:
        placed = {"previous_item_id": previous, "item": item.view()}
        await self.emit(
            {"type": "conversation.item.added", **placed}, {"type": "conversation.item.done", **placed}
        )

    async def _item_delete(self, event: dict[str, Any]) -> None:
        self._conversation.items.remove(self._conversation.named(event["item_id"], "delete"))
        await self.emit({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    async def _item_retrieve(self, event: dict[str, Any]) -> None:
        item = self._conversation.named(event["item_id"], "retrieve")
        await self.emit({"type": "conversation.item.retrieved", "item": item.view(with_audio=True)})

    async def _item_truncate(self, event: dict[str, Any]) -> None:
        place = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
        self._conversation.truncate(**place)
        await self.emit({"type": "conversation.item.truncated", **place})

    # --- hearing

    async def _append(self, event: dict[str, Any]) -> None:
        audio = decode_audio(event["audio"], "audio")
        for detected in self._buffer.append(audio, self._config["audio"]["input"]["turn_detection"]):
            await self._hear(detected)

    async def _hear(self, detected: Detected) -> None:
        detection = self._config["audio"]["input"]["turn_detection"]
        if detected.what == "started":
            self._next_item_id = self._ids.new("item")
            await self.emit(
                {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": detected.at_ms,
                    "item_id": self._next_item_id,
                }
            )
            if self._active and detection["interrupt_response"]:
                await self._stop(self._active, "turn_detected")
            return
        await self.emit(
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": detected.at_ms,
                "item_id": self._next_item_id,
            }
        )
        await self._commit_buffer()
        if not detection["create_response"]:
            return
        if self._active:  # documented: without interrupt_response "this may fail to create a response"
            log.debug("no response to this turn: %s is still active", self._active.id)
            return
        await self._start({})

    async def _commit(self, _event: dict[str, Any]) -> None:
        if self._buffer.held_ms < MIN_COMMIT_MS:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {self._buffer.held_ms:.2f}ms of audio.",
            )
        await self._commit_buffer()

    async def _commit_buffer(self) -> None:
        content = {"type": "input_audio", "transcript": None}
        item = Item(
            {
                "id": self._next_item_id or self._ids.new("item"),
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [content],
            },
            audio={0: self._buffer.take()},
        )
        self._next_item_id = None
        previous = self._conversation.append(item)
        await self.emit(
            {"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": item.id}
        )
        await self._show(item, previous)
        if transcription := self._config["audio"]["input"]["transcription"]:
            await self._transcribe(item, transcription.get("model") or "whisper-1")

    async def _transcribe(self, item: Item, model: str) -> None:
        transcript = f"Speech of {item.audio_ms() / 1000:.1f} seconds."
        item.wire["content"][0]["transcript"] = transcript
        kind = "conversation.item.input_audio_transcription"
        at = {"item_id": item.id, "content_index": 0}
        for word in transcript.split(" "):
            await self.emit(
                {"type": f"{kind}.delta", **at, "delta": word if word == "Speech" else f" {word}"}
            )
        spent = transcription_usage(model, item.audio_ms(), transcript)
        await self.emit({"type": f"{kind}.completed", **at, "transcript": transcript, "usage": spent})

    async def _clear(self, _event: dict[str, Any]) -> None:
        self._buffer.clear()
        self._next_item_id = None
        await self.emit({"type": "input_audio_buffer.cleared"})

    # --- responses

    async def _response_create(self, event: dict[str, Any]) -> None:
        await self._start(event.get("response") or {})

    async def _start(self, params: dict[str, Any]) -> None:
        in_band = params.get("conversation") != "none"
        if in_band and self._active:
            raise ClientError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self._active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        response = Response(
            self._request(params, in_band), self._ids, self.emit, self._pace, on_done=self._forget
        )
        if in_band:
            self._active = response
        else:
            self._out_of_band[response.id] = response
        self._previous_context = response.read
        self._has_spoken = self._has_spoken or response.speaks
        await response.announce()
        self._nursery.start_soon(response.run, name=response.id)

    def _request(self, params: dict[str, Any], in_band: bool) -> Request:
        asked = self._config | {key: value for key, value in params.items() if value is not None}
        voiced = self._config["audio"]["output"] | {
            key: value
            for key, value in ((params.get("audio") or {}).get("output") or {}).items()
            if value is not None
        }
        context = self._conversation.items
        if params.get("input") is not None:
            context = [self._referred(wire, index) for index, wire in enumerate(params["input"])]
        return Request(
            conversation=self._conversation if in_band else None,
            context=list(context),
            previous_context=self._previous_context,
            settings=Settings(asked["instructions"], asked["tools"], asked["tool_choice"]),
            modalities=asked["output_modalities"],
            max_output_tokens=asked["max_output_tokens"],
            voice=voiced["voice"],
            format=voiced["format"],
            speed=voiced["speed"],
            metadata=params.get("metadata"),
        )

    def _referred(self, wire: dict[str, Any], index: int) -> Item:
        where = f"response.input[{index}]"
        if wire["type"] != "item_reference":
            return client_item(wire, self._ids, where)
        item = self._conversation.find(wire["id"])
        if item is None:
            raise ClientError("invalid_value", f"Item with id '{wire['id']}' does not exist.", f"{where}.id")
        return item

    def _forget(self, response: Response) -> None:
        if response is self._active:
            self._active = None
        else:
            del self._out_of_band[response.id]

    async def _response_cancel(self, event: dict[str, Any]) -> None:
        response = self._active
        if (response_id := event.get("response_id")) is not None and (
            response is None or response.id != response_id
        ):
            response = self._out_of_band.get(response_id)
        if response is None:
            raise ClientError("response_cancel_not_active", "Cancellation failed: no active response found")
        await self._stop(response, "client_cancelled")

    async def _stop(self, response: Response, reason: str) -> None:
        response.cancel(reason)
        await response.finished.wait()
