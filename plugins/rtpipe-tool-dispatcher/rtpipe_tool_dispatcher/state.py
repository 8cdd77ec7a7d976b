"""What the dispatcher keeps for one session."""

import math
from dataclasses import dataclass, field

import trio

from rtpipe import Tool
from rtpipe_tool_dispatcher.voice import Voice

CALLS_REMEMBERED = 1000
RUNS_AT_ONCE = 100
"""Those that outlived their time limit among them."""
RUNS_KEPT = 50
RUNS_KEPT_CHARS = 4_000_000
CONFIRM_WITHIN_S = 120.0


@dataclass(slots=True, eq=False)
class Run:
    """One execution of a tool. Equal calls share it."""

    started_s: float
    is_retry: bool = False
    """Whether an equal call has failed just before."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    ended_s: float = math.inf
    status: str = ""
    """``ok``, ``error`` or ``cancelled``, once it is done."""
    envelope: str = ""
    timed_out: bool = False
    cancelled_by: str = ""

    def cancel(self, reason: str) -> None:
        """Have it cancelled; the provider is told *reason*."""
        self.cancelled_by = reason
        self.scope.cancel(reason=reason)


@dataclass(slots=True, eq=False)
class Call:
    """A function call of the model's that is answered here."""

    call_id: str
    name: str
    arguments: str
    started_s: float
    batch: "Batch"
    tool: Tool | None
    run: Run | None = None

    @property
    def shown_name(self) -> str:
        """For facts: a name that the model made up is none."""
        return self.name if self.tool is not None else ""


@dataclass(slots=True, eq=False)
class Batch:
    """The calls of one response: run together, answered by one response."""

    open: dict[str, Call] = field(default_factory=dict)
    outputs: list[tuple[Call, str]] = field(default_factory=list)
    """Answers that wait for the ``response.done`` of the response that made the calls."""
    clients: set[str] = field(default_factory=set)
    """Calls of the same response that the client answers."""
    ended: bool = False
    interrupted: bool = False
    """The caller or the client went on meanwhile: nobody waits for a "hold on" any more."""
    matters: bool = False
    """Whether a call was answered that nobody cancelled: the caller is to hear of it."""
    as_messages: bool = False
    """Whether the upstream that knew the calls is gone."""


@dataclass(slots=True)
class Output:
    """An answer on its way up."""

    name: str
    envelope: str
    event_id: str
    is_message: bool


class State:
    """The tools of one session, the calls in hand, and who is speaking."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        """What is announced to the model and answered here."""
        self.announced: set[str] = set()
        """Every name that was ever announced here."""
        self.client_tools: set[str] = set()
        """Names that the client has declared at some time: calls of these are not ours."""
        self.batches: dict[str, Batch] = {}
        self.seen: dict[str, None] = {}
        self.runs: dict[str, Run] = {}
        self.outputs: dict[str, Output] = {}
        """By item: sent, and not yet in the conversation."""
        self.asked_to_confirm: dict[str, tuple[int, float]] = {}
        """By call: the caller's turn and the time at which the model was told to ask."""
        self.turns = 0
        self.rounds = 0
        """Responses asked for here since the caller's last turn."""
        self.voice = Voice()
        self.is_asking = False

    def is_new(self, call_id: str) -> bool:
        """Whether this call was not seen before; it is now."""
        if call_id in self.seen:
            return False
        self.seen[call_id] = None
        if len(self.seen) > CALLS_REMEMBERED:
            del self.seen[next(iter(self.seen))]
        return True

    def keep(self, key: str, run: Run) -> None:
        """Remember a run for equal calls; the oldest that are over make room."""
        self.runs.pop(key, None)
        self.runs[key] = run
        self.make_room()

    @property
    def is_busy(self) -> bool:
        """Whether as many calls run as may."""
        return sum(not run.done.is_set() for run in self.runs.values()) >= RUNS_AT_ONCE

    def make_room(self) -> None:
        """Forget finished runs, oldest first, until what is kept is within bounds."""
        chars = sum(len(run.envelope) for run in self.runs.values())
        for key in [key for key, run in self.runs.items() if run.done.is_set()]:
            if len(self.runs) <= RUNS_KEPT and chars <= RUNS_KEPT_CHARS:
                return
            chars -= len(self.runs.pop(key).envelope)

    def has_confirmed(self, key: str, now_s: float) -> bool:
        """Whether the caller was asked about this call and has had a turn since. Counts once."""
        asked = self.asked_to_confirm.get(key)
        if asked is not None and self.turns > asked[0] and now_s <= asked[1] + CONFIRM_WITHIN_S:
            del self.asked_to_confirm[key]
            return True
        if asked is None or self.turns > asked[0]:
            self.asked_to_confirm = {
                each: when
                for each, when in self.asked_to_confirm.items()
                if now_s <= when[1] + CONFIRM_WITHIN_S
            }
            self.asked_to_confirm[key] = (self.turns, now_s)
        return False

    def turn(self) -> None:
        """The caller has said something."""
        self.turns += 1
        self.rounds = 0

    def interrupt(self, reason: str) -> None:
        """The caller or the client goes on: cancel what may be cancelled."""
        for batch in self.batches.values():
            batch.interrupted = True
            for call in batch.open.values():
                if call.run is not None and call.tool is not None and call.tool.cancellable:
                    call.run.cancel(reason)
