"""One session with the simulated model, over any pair of receive and send."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import trio

from . import config, wire
from .conversation import Conversation, Item, client_item
from .errors import ClientError, invalid_value
from .faults import Fault, FaultError, session_fault
from .hearing import Hearing
from .ids import Ids
from .models import check_generation, model_named
from .options import SimOptions
from .replies import Replies
from .state import Order, State

DEFAULT_MODEL = "gpt-realtime-2.1"
FAULT = "fault!"  # a user's text that begins so orders a fault

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[str | bytes | None]]
Send = Callable[[str], Awaitable[None]]

EXPIRED = "Your session hit the maximum duration of 60 minutes."
LAST_WORDS_SECONDS = 10

_ENDINGS = (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError)


class Ending(NamedTuple):
    """What to close with."""

    code: int
    reason: str


async def run_session(
    receive: Receive,
    send: Send,
    options: SimOptions | None = None,
    *,
    model: str | None = DEFAULT_MODEL,
    bound: dict[str, Any] | None = None,
    order: Order | None = None,
) -> Ending:
    """Serve one client until it is gone: `receive` returns None, or either callable raises trio's
    EndOfChannel, ClosedResourceError or BrokenResourceError; or until its time is over. Then everything the
    session started ends. `bound`: the configuration it begins with, as in a session.update. `order`: how
    faults are ordered of whoever holds the line."""
    ending = Ending(1000, "")
    try:
        async with trio.open_nursery() as nursery:
            session = SimSession(
                send, nursery, options or SimOptions(), model=model, bound=bound, order=order
            )
            await session.open()
            nursery.start_soon(session.expire)
            while (message := await receive()) is not None:
                await session.handle(message)
            nursery.cancel_scope.cancel()
        if session.expired:
            ending = Ending(1001, EXPIRED)
    except* _ENDINGS as gone:
        log.debug("the client is gone: %r", gone.exceptions)
    return ending


def opening(ids: Ids, options: SimOptions, model: str | None, bound: dict[str, Any] | None) -> dict[str, Any]:
    """The session object a session begins with. Raises ClientError for what cannot be bound to one."""
    expires_at = int(time.time() + options.session_seconds)
    kind = bound["type"] if bound else "realtime"
    session = config.new_session(ids.new("sess"), model or DEFAULT_MODEL, expires_at, kind)
    return config.updated(session, bound, has_spoken=False) if bound else session


class SimSession:
    """Takes client text in, emits server text through `send`. Responses run as tasks of `nursery`."""

    def __init__(
        self,
        send: Send,
        nursery: trio.Nursery,
        options: SimOptions,
        *,
        model: str | None = DEFAULT_MODEL,
        bound: dict[str, Any] | None = None,
        order: Order | None = None,
    ) -> None:
        self.expired = False
        self._send = send
        self._sending = trio.Lock()
        ids = Ids(options.seed)
        self._state = State(
            config=opening(ids, options, model, bound),
            conversation=Conversation(ids.new("conv")),
            ids=ids,
            options=options,
            nursery=nursery,
            emit=self.emit,
            order=order,
        )
        self._replies = replies = Replies(self._state)
        hearing = Hearing(self._state, replies)
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "session.update": self._session_update,
            "input_audio_buffer.append": hearing.append,
            "input_audio_buffer.commit": hearing.commit,
            "input_audio_buffer.clear": hearing.clear,
            "conversation.item.create": self._item_create,
            "conversation.item.delete": self._item_delete,
            "conversation.item.retrieve": self._item_retrieve,
            "conversation.item.truncate": self._item_truncate,
        }
        if self._state.config["type"] == "realtime":  # a session of transcription answers nothing
            self._handlers |= {"response.create": replies.create, "response.cancel": replies.cancel}

    async def open(self) -> None:
        await self.emit({"type": "session.created", "session": self._state.config})
        if self._state.options.legacy_events:
            conversation = {"id": self._state.conversation.id, "object": "realtime.conversation"}
            await self.emit({"type": "conversation.created", "conversation": conversation})

    async def expire(self) -> None:
        """End the session when its time is over, with an error as its last event."""
        await trio.sleep(self._state.options.session_seconds)
        self.expired = True
        with trio.move_on_after(LAST_WORDS_SECONDS):  # a client that does not read cannot prolong it
            await self.emit(ClientError("session_expired", EXPIRED).event(None))
        self._state.nursery.cancel_scope.cancel()

    async def handle(self, message: str | bytes) -> None:
        """Do what one client event asks. Returns when its direct answer is sent; a response goes on alone."""
        event: dict[str, Any] = {}
        try:
            event = wire.decode(message)
            wire.check(event)
            if event["type"] not in self._handlers:
                raise invalid_value("type", event["type"], self._handlers)
            await self._handlers[event["type"]](event)
        except ClientError as error:
            event_id = event.get("event_id")
            await self.emit(error.event(event_id if isinstance(event_id, str) else None))

    async def emit(self, *events: dict[str, Any]) -> None:
        """Send events with nothing in between. Waits for a slow client: nothing is queued here."""
        async with self._sending:
            for event in events:
                await self._write(event)
                if self._state.options.legacy_events and event["type"] == "conversation.item.added":
                    await self._write(event | {"type": "conversation.item.created"})

    async def _write(self, event: dict[str, Any]) -> None:
        nameless = self._state.options.azure and event["type"] == "error"
        event_id = None if nameless else self._state.ids.new("event")
        stamped = {"type": event["type"], "event_id": event_id} | event
        await self._send(msgspec.json.encode(stamped).decode())

    async def _session_update(self, event: dict[str, Any]) -> None:
        state = self._state
        updated = config.updated(state.config, event["session"], has_spoken=state.has_spoken)
        check_generation(model_named(state.config.get("model") or ""), event["session"], "session")
        state.config = updated
        await self.emit({"type": "session.updated", "session": state.config})
        await self._replies.mcp.list_tools(state.config.get("tools") or [])

    # --- items

    async def _item_create(self, event: dict[str, Any]) -> None:
        item = client_item(event["item"], self._state.ids, "item", self._state.input_encoding)
        ordered = self._faults_in(item)
        previous = self._state.conversation.insert(item, event.get("previous_item_id"))
        placed = {"previous_item_id": previous, "item": item.view()}
        await self.emit(
            {"type": "conversation.item.added", **placed}, {"type": "conversation.item.done", **placed}
        )
        for order, fault in ordered:
            await order(fault)

    def _faults_in(self, item: Item) -> list[tuple[Order, Fault]]:
        """The faults that a user's text orders."""
        if item.speaker != "user":
            return []
        words = [text.removeprefix(FAULT) for text in item.texts() if text.startswith(FAULT)]
        if words and self._state.order is None:
            raise ClientError(
                "invalid_value", "This session has no line to produce faults on.", "item.content"
            )
        try:
            return [(self._state.order, session_fault(each)) for each in words if self._state.order]
        except FaultError as error:
            raise ClientError("invalid_value", str(error), "item.content") from None

    async def _item_delete(self, event: dict[str, Any]) -> None:
        self._state.conversation.items.remove(self._state.conversation.named(event["item_id"], "delete"))
        await self.emit({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    async def _item_retrieve(self, event: dict[str, Any]) -> None:
        item = self._state.conversation.named(event["item_id"], "retrieve")
        await self.emit({"type": "conversation.item.retrieved", "item": item.view(with_audio=True)})

    async def _item_truncate(self, event: dict[str, Any]) -> None:
        place = {key: event[key] for key in ("item_id", "content_index", "audio_end_ms")}
        self._state.conversation.truncate(**place)
        await self.emit({"type": "conversation.item.truncated", **place})
