"""What response.create and response.cancel do: which responses there are, and what each is made from."""

from __future__ import annotations

from typing import Any

from .answers import Settings
from .conversation import Item, client_item
from .errors import ClientError
from .responses import Request, Response
from .state import State
from .usage import Segment


class Replies:
    """`active`: the one response that may write to the conversation. Others are out of band."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.active: Response | None = None
        self._out_of_band: dict[str, Response] = {}
        self._previous_context: list[Segment] = []

    async def create(self, event: dict[str, Any]) -> None:
        await self.start(event.get("response") or {})

    async def start(self, params: dict[str, Any]) -> None:
        in_band = params.get("conversation") != "none"
        if in_band and self.active:
            raise ClientError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        response = Response(
            self._request(params, in_band),
            self._state.ids,
            self._state.emit,
            self._state.options.pace,
            on_done=self._forget,
        )
        if in_band:
            self.active = response
        else:
            self._out_of_band[response.id] = response
        self._previous_context = response.read
        self._state.has_spoken = self._state.has_spoken or response.speaks
        await response.announce()
        self._state.nursery.start_soon(response.run, name=response.id)

    def _request(self, params: dict[str, Any], in_band: bool) -> Request:
        asked = self._state.config | {key: value for key, value in params.items() if value is not None}
        voiced = self._state.config["audio"]["output"] | {
            key: value
            for key, value in ((params.get("audio") or {}).get("output") or {}).items()
            if value is not None
        }
        context = self._state.conversation.items
        if params.get("input") is not None:
            context = [self._referred(wire, index) for index, wire in enumerate(params["input"])]
        return Request(
            conversation=self._state.conversation if in_band else None,
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
            return client_item(wire, self._state.ids, where)
        item = self._state.conversation.find(wire["id"])
        if item is None:
            raise ClientError("invalid_value", f"Item with id '{wire['id']}' does not exist.", f"{where}.id")
        return item

    def _forget(self, response: Response) -> None:
        if response is self.active:
            self.active = None
        else:
            del self._out_of_band[response.id]

    async def cancel(self, event: dict[str, Any]) -> None:
        response = self.active
        if (response_id := event.get("response_id")) is not None and (
            response is None or response.id != response_id
        ):
            response = self._out_of_band.get(response_id)
        if response is None:
            raise ClientError("response_cancel_not_active", "Cancellation failed: no active response found")
        await self._stop(response, "client_cancelled")

    async def interrupt(self) -> None:
        """The user speaks: end the response of the default conversation, if there is one."""
        if self.active:
            await self._stop(self.active, "turn_detected")

    async def _stop(self, response: Response, reason: str) -> None:
        response.cancel(reason)
        await response.finished.wait()
