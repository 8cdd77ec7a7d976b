"""What response.create and response.cancel do: which responses there are, and what each is made from."""

from __future__ import annotations

from typing import Any

from .answers import Answer, Settings, answer
from .config import check_voice
from .context import Cache, head_segment, item_segments, shortened
from .conversation import Item, client_item
from .errors import ClientError
from .mcp import Mcp
from .models import check_generation, model_named
from .rates import RateLimits
from .responses import Request, Response
from .scripted import scripted
from .state import State
from .usage import Tokens, total

# How much the simulated model thinks; without an effort asked for it does not.
_REASONING_TOKENS = {"minimal": 8, "low": 16, "medium": 32, "high": 64, "xhigh": 128}


class Replies:
    """`active`: the one response that may write to the conversation. Others are out of band."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.active: Response | None = None
        self._out_of_band: dict[str, Response] = {}
        self._asked = 0  # responses so far, for a script
        self._cache = Cache()
        self._rates = RateLimits(state.options.requests_per_minute, state.options.tokens_per_minute)
        self.mcp = Mcp(state)

    async def create(self, event: dict[str, Any]) -> None:
        await self.start(event.get("response") or {})

    async def answer_turn(self) -> None:
        """Answer what the user said, unasked. A refusal is told as an error that no client event caused."""
        try:
            await self.start({})
        except ClientError as error:
            await self._state.emit(error.event(None))

    async def start(self, params: dict[str, Any]) -> None:
        in_band = params.get("conversation") != "none"
        if in_band and self.active:
            raise ClientError(
                "conversation_already_has_active_response",
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
            )
        check_generation(model_named(self._state.config["model"]), params, "response")
        request = self._request(params, in_band)
        await self.mcp.list_tools(params.get("tools") or [])
        response = Response(
            request, self._state.ids, self._state.emit, self._state.options.pace, on_done=self._done
        )
        if in_band:
            self.active = response
            self._state.buffer.reply_begins()
        else:
            self._out_of_band[response.id] = response
        if response.speaks and self._state.voice is None:
            self._state.voice = request.voice
        if request.answer.fault and self._state.order:
            await self._state.order(request.answer.fault)
        await response.announce()
        self._state.nursery.start_soon(response.run, name=response.id)

    def _request(self, params: dict[str, Any], in_band: bool) -> Request:
        asked = self._state.config | {key: value for key, value in params.items() if value is not None}
        own = {
            key: value
            for key, value in ((params.get("audio") or {}).get("output") or {}).items()
            if value is not None
        }
        if "voice" in own:
            check_voice(own["voice"], self._state.voice, "response")
        voiced = self._state.config["audio"]["output"] | own
        effort: str = (asked.get("reasoning") or {}).get("effort") or ""
        settings = Settings(
            asked["instructions"],
            asked["tools"],
            asked["tool_choice"],
            parallel_tool_calls=asked.get("parallel_tool_calls") is not False,
        )
        answered, read, from_cache = self._read(params, settings)
        return Request(
            conversation=self._state.conversation if in_band else None,
            answer=answered,
            read=read,
            from_cache=from_cache,
            reasoning_tokens=_REASONING_TOKENS.get(effort, 0),
            modalities=asked["output_modalities"],
            max_output_tokens=asked["max_output_tokens"],
            voice=voiced["voice"],
            format=voiced["format"],
            speed=voiced["speed"],
            metadata=params.get("metadata"),
        )

    def _read(self, params: dict[str, Any], settings: Settings) -> tuple[Answer, Tokens, Tokens]:
        """What is answered, the tokens read for it, and those of them that the cache had."""
        items = self._input(params)
        most_input = model_named(self._state.config["model"]).most_input
        head = head_segment(settings.instructions, settings.tools)
        # Azure takes and echoes other values, and does nothing with them.
        truncation = "auto" if self._state.options.azure else self._state.config["truncation"]
        kept = shortened(head, items, truncation, most_input)
        if params.get("input") is None:
            for item in items[: len(items) - len(kept)]:
                item.dropped = True
        segments = [head, *item_segments(kept)]
        read = total(segment.tokens for segment in segments)
        answered = self._scripted(kept) or answer(kept, settings)
        if refusal := self._rates.take(sum(read)):
            answered = Answer(answered.steps, refusal)
        if answered.failure and not answered.failure.midway:
            return answered, read, Tokens()
        return answered, read, self._cache.read(segments)

    def _scripted(self, context: list[Item]) -> Answer | None:
        self._asked += 1
        scenario = self._state.options.scenario
        return scripted(scenario, self._asked, context) if scenario else None

    def _input(self, params: dict[str, Any]) -> list[Item]:
        if params.get("input") is None:
            return [item for item in self._state.conversation.items if not item.dropped]
        return [self._referred(wire, index) for index, wire in enumerate(params["input"])]

    def _referred(self, wire: dict[str, Any], index: int) -> Item:
        where = f"response.input[{index}]"
        if wire["type"] != "item_reference":
            return client_item(wire, self._state.ids, where, self._state.input_encoding)
        item = self._state.conversation.find(wire["id"])
        if item is None:
            raise ClientError("invalid_value", f"Item with id '{wire['id']}' does not exist.", f"{where}.id")
        return item

    def _done(self, response: Response, bill: dict[str, Any]) -> dict[str, Any]:
        if response is self.active:
            self.active = None
            self._state.buffer.reply_ends(response.audio_ms())
        else:
            del self._out_of_band[response.id]
        self._rates.spend(bill["output_tokens"])
        return self._rates.event(bill["total_tokens"])

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
