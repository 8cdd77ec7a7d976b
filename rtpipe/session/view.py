"""One stage's view of its session: what hooks get as ``session``."""

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from rtpipe.api.event import Event, Json
from rtpipe.api.facts import Fact
from rtpipe.api.principal import Principal
from rtpipe.api.tools import Tool, ToolCall
from rtpipe.api.verdicts import Close, Drop
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Direction
from rtpipe.session.meters import Meter

if TYPE_CHECKING:
    from rtpipe.chain.compile import Stage
    from rtpipe.session.session import Session


class StageView:
    """Implements ``rtpipe.Session`` for one stage."""

    def __init__(self, session: "Session", stage: "Stage") -> None:
        self._session = session
        self._stage = stage
        self.state: Any = stage.plugin.state_type()

    @property
    def id(self) -> str:
        return self._session.id

    @property
    def principal(self) -> Principal:
        return self._session.principal

    @property
    def model(self) -> str:
        return self._session.model

    @property
    def meter(self) -> Meter:
        return self._session.meter

    @property
    def asked(self) -> Json:
        return copy.deepcopy(self._session.configuration.asked)

    @property
    def effective(self) -> Json:
        return copy.deepcopy(self._session.configuration.effective)

    def now(self) -> float:
        return trio.current_time()

    def send_upstream(self, event: Event, *, whole_chain: bool = False, audible: bool = False) -> str:
        event.audible = audible
        return self._send(UPSTREAM, event, whole_chain)

    def send_downstream(self, event: Event, *, whole_chain: bool = False) -> str:
        return self._send(DOWNSTREAM, event, whole_chain)

    def _send(self, direction: Direction, event: Event, whole_chain: bool) -> str:
        event.origin = self._stage.name
        start = 0 if whole_chain else self._step(direction) + 1
        return self._session.send(direction, event, start)

    def release(self, key: str) -> bool:
        # A list, not a generator: the other direction is released too when the first held something.
        return any(
            [self._session.lane(each).release(key, self._step(each)) for each in (UPSTREAM, DOWNSTREAM)]
        )

    def drop_held(self, key: str, reason: str, *, ours: bool = False) -> None:
        for direction in (UPSTREAM, DOWNSTREAM):
            lane = self._session.lane(direction)
            lane.drop_held(key, self._step(direction), self._stage.name, Drop(reason, ours))

    def gate_turns(self, on: bool) -> None:
        self._session.turns.gate(self._stage.name, on)

    def hide(self, item_id: str) -> None:
        self._session.veil.hide_item(item_id)

    def reconfigure(self) -> None:
        self._session.reconfigure()

    def record(self, fact: Fact) -> None:
        self._session.record(fact)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self._session.start_task(self._stage, function, *args)

    def close(self, code: int, reason: str) -> None:
        self._session.act_on_close(Close(code, reason), self._stage.name)

    async def offered_tools(self) -> list[Tool]:
        return await self._session.offered_tools()

    async def answer_tool(self, call: ToolCall, timeout_s: float) -> str | None:
        return await self._session.answer_tool(call, timeout_s)

    def _step(self, direction: Direction) -> int:
        return self._session.chain.step_of(self._stage.name, direction)


def with_session(fact: Fact, session_id: str) -> Fact:
    """The fact, naming its session."""
    return fact if fact.session else msgspec.structs.replace(fact, session=session_id)
