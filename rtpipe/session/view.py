"""One stage's view of its session: what hooks get as ``session``."""

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from weakref import proxy

import msgspec
import trio

from rtpipe.api.event import Event, Json
from rtpipe.api.facts import Fact
from rtpipe.api.principal import Principal
from rtpipe.api.tools import Tool, ToolCall
from rtpipe.api.verdicts import Close, Drop
from rtpipe.chain.guard import HookCall
from rtpipe.chain.walk import WIRE_CODES
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Direction
from rtpipe.session.meters import Count
from rtpipe.session.tools import answer_tool, offered_tools

if TYPE_CHECKING:
    from rtpipe.chain.compile import Stage
    from rtpipe.session.session import Session


KEPT_BYTES = 16 * 1024
"""What one stage may keep in one session."""


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
    def traceparent(self) -> str:
        return self._session.traceparent

    @property
    def kept(self) -> Json:
        kept = self._session.kept.get(self._stage.name)
        return {} if kept is None else msgspec.json.decode(kept)

    def keep(self, what: Json) -> None:
        # Written now: what cannot be written fails here, in the hook that made it.
        written = msgspec.json.encode(what)
        if len(written) > KEPT_BYTES:
            raise ValueError(f"{len(written)} bytes are too much to keep: at most {KEPT_BYTES}")
        self._session.kept[self._stage.name] = msgspec.Raw(written)
        self._session.changed()

    @property
    def meter(self) -> "StageMeter":
        return StageMeter(self._session, self._stage)

    @property
    def asked(self) -> Json:
        return copy.deepcopy(self._session.configuration.asked)

    @property
    def effective(self) -> Json:
        return copy.deepcopy(self._session.configuration.effective)

    def now(self) -> float:
        return trio.current_time()

    def send_upstream(self, event: Event, *, whole_chain: bool = False, audible: bool = False) -> str:
        return self._send(UPSTREAM, event, whole_chain, audible)

    def send_downstream(self, event: Event, *, whole_chain: bool = False) -> str:
        return self._send(DOWNSTREAM, event, whole_chain)

    def _send(self, direction: Direction, event: Event, whole_chain: bool, audible: bool = False) -> str:
        # A copy: the event may be the one in hand, or be sent to many sessions.
        ours = event.copy(self._stage.name, audible=audible)
        start = 0 if whole_chain else self._step(direction) + 1
        return self._session.send(direction, ours, start)

    def release(self, key: str, event: Event | None = None) -> bool:
        instead = None if event is None else event.copy()
        # A list, not a generator: the other direction is released too when the first held something.
        return any(
            [
                self._session.lane(each).release(key, self._step(each), instead)
                for each in (UPSTREAM, DOWNSTREAM)
            ]
        )

    def holds(self, key: str) -> bool:
        return any(self._session.lane(each).holds(key, self._step(each)) for each in (UPSTREAM, DOWNSTREAM))

    def put_back(self, event: Event, key: str) -> bool:
        return self._session.lane(UPSTREAM).put_back(event.copy(), key, self._step(UPSTREAM))

    def lend_id(self) -> str:
        return self._session.veil.lend_id()

    def drop_held(
        self,
        key: str,
        reason: str,
        *,
        ours: bool = False,
        code: str = "event_dropped",
        outcome: str = "dropped",
    ) -> None:
        for direction in (UPSTREAM, DOWNSTREAM):
            lane = self._session.lane(direction)
            lane.drop_held(key, self._step(direction), self._stage.name, Drop(reason, ours, code), outcome)

    def gate_turns(self, on: bool) -> None:
        self._session.turns.gate(self._stage.name, on)

    def hide(self, item_id: str) -> None:
        self._session.veil.hide_item(item_id)
        self._session.changed()

    def reconfigure(self) -> None:
        self._session.reconfigure()

    def record(self, fact: Fact) -> None:
        self._session.record(fact)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self._session.stages.start(self._stage, function, *args)

    def close(self, code: int, reason: str) -> None:
        if code not in WIRE_CODES or not isinstance(reason, str):
            raise ValueError(f"close code {code} is not for the wire")
        self._session.act_on_close(Close(code, reason), self._stage.name)

    async def offered_tools(self) -> list[Tool]:
        return await offered_tools(self._session)

    async def answer_tool(self, call: ToolCall, timeout_s: float) -> str | None:
        return await answer_tool(self._session, call, timeout_s)

    def _step(self, direction: Direction) -> int:
        return self._session.chain.step_of(self._stage.name, direction)


class StageMeter:
    """The session's meter for one stage, whose callbacks are hooks like any other."""

    def __init__(self, session: "Session", stage: "Stage") -> None:
        self._session: Session = proxy(session)  # which keeps the callbacks
        self._stage = stage

    def count(self, direction: str, kind: str) -> Count:
        return self._session.meter.count(direction, kind)

    def total(self, direction: str) -> tuple[int, int]:
        return self._session.meter.total(direction)

    @property
    def playout_ahead_s(self) -> float:
        return self._session.meter.playout_ahead_s

    def at(self, kind: str, payload_bytes: int, callback: Callable[[], None]) -> None:
        call = HookCall(self._stage.name, "meter.at", callback, False, None, self._stage.on_error)
        self._session.meter.at(kind, payload_bytes, lambda: self._session.stages.run_now(call))


def with_session(fact: Fact, session_id: str) -> Fact:
    """The fact, naming its session."""
    return fact if fact.session else msgspec.structs.replace(fact, session=session_id)
