"""What a hook sees of its session."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from rtpipe.api.event import Event, Json
from rtpipe.api.facts import Fact
from rtpipe.api.principal import Principal
from rtpipe.api.tools import Tool, ToolCall

StateT_co = TypeVar("StateT_co", covariant=True)


class Count(Protocol):
    """What crossed the upstream edge of one (direction, type). Times are monotonic seconds."""

    frames: int
    bytes: int
    first_s: float
    last_s: float


class Meter(Protocol):
    """The host's plain counters; reading them costs nothing while audio flows."""

    def count(self, direction: str, kind: str) -> Count:
        """The counters of one event type; zeros for what never came."""
        ...

    def total(self, direction: str) -> tuple[int, int]:
        """Frames and payload bytes of one direction, of whatever type."""
        ...

    def at(self, kind: str, payload_bytes: int, callback: Callable[[], None]) -> None:
        """Call *callback* once, when this many payload bytes of server events *kind* have passed in all."""
        ...

    @property
    def playout_ahead_s(self) -> float:
        """Seconds of answer audio received but not yet played, if played since it came."""
        ...


class Draft(Protocol):
    """The session configuration on its way to the upstream. Paths are dotted, values are JSON."""

    @property
    def asked(self) -> Json:
        """What the client asked for, as one object (a copy)."""
        ...

    def get(self, path: str, default: Any = None) -> Any: ...

    def set(self, path: str, value: Any) -> None: ...

    def remove(self, path: str) -> None: ...

    def require(self, path: str) -> None:
        """Do not go on without what the draft will have, or will not have, at *path* when every stage has had
        its say.

        Other changes of stages are given up where the upstream refuses them. With this one the client's
        update is refused instead, and if it was no update of the client's, the session ends.
        """
        ...


class Session(Protocol[StateT_co]):
    """One stage's view of one session.

    Everything here that is not ``async`` returns at once and may be called from any hook or task of
    the session. Events sent from a hook walk after the event in hand.
    """

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> StateT_co:
        """What this stage keeps for this session."""
        ...

    @property
    def principal(self) -> Principal: ...

    @property
    def model(self) -> str:
        """The model dialled, after aliases."""
        ...

    @property
    def traceparent(self) -> str:
        """The W3C trace context that came with the client's handshake, empty if none did."""
        ...

    @property
    def kept(self) -> Json:
        """What this stage has given to `keep` (a copy), perhaps in a process that has ended since; empty
        where it has given nothing, or nothing lasted."""
        ...

    def keep(self, what: Json) -> None:
        """Have this JSON object found again at `kept`, in place of the one before. It lasts as long as the
        session: beyond the process where the session is persisted, which is then as old as that.

        State that a session should not lose in a restart belongs here, a few hundred bytes of it: it is
        written with the conversation, within a second. Raises ``TypeError`` for what is no JSON, and
        ``ValueError`` for more than 16 KiB of it.
        """
        ...

    @property
    def meter(self) -> Meter: ...

    @property
    def asked(self) -> Json:
        """The configuration as the client asked for it (a copy)."""
        ...

    @property
    def effective(self) -> Json:
        """The configuration as the upstream confirmed it (a copy)."""
        ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def send_upstream(self, event: Event, *, whole_chain: bool = False, audible: bool = False) -> str:
        """Send an event towards the model, starting behind this stage. Returns the ``event_id`` the host
        gave it, by which an ``error`` about it is recognised.

        *whole_chain* enters at the client edge and skips only this stage. *audible* lets the client
        see and hear the answer to a ``response.create``. Raises ``QueueFull``.
        """
        ...

    def send_downstream(self, event: Event, *, whole_chain: bool = False) -> str:
        """Send an event towards the client, starting behind this stage; returns its ``event_id``.

        Raises ``QueueFull``.
        """
        ...

    def release(self, key: str, event: Event | None = None) -> bool:
        """Let the events held under *key* go on, as soon as the ordering table allows; or *event* in place of
        each, which has to be of the same type.

        They go on behind this stage, which is not asked again. Returns whether anything was held: False
        when the host has given it up meanwhile.
        """
        ...

    def drop_held(
        self,
        key: str,
        reason: str,
        *,
        ours: bool = False,
        code: str = "event_dropped",
        outcome: str = "dropped",
    ) -> None:
        """Drop the events held under *key*, as the verdict ``Drop(reason, ours, code)`` would.

        *outcome* is what the fact ``Waited`` says of them.
        """
        ...

    def holds(self, key: str) -> bool:
        """Whether anything is held under *key*: not released, dropped, or given up by the host."""
        ...

    def put_back(self, event: Event, key: str) -> bool:
        """Hold a client event that this stage has let pass before, as it passed, when it is known that it
        came to nothing at the upstream and is to go again.

        It waits under *key* in front of everything else that waits here, behind what was put back before
        it. Returns False when the queue is full: then it is not held.
        """
        ...

    def lend_id(self) -> str:
        """An ``event_id`` for a client's event that has none. Stages recognise an ``error`` about the event
        by it; the client is told of that error without the id it never gave."""
        ...

    def gate_turns(self, on: bool) -> None:
        """While any stage wants it, the caller's turns become ``response.create`` events of origin host."""
        ...

    def hide(self, item_id: str) -> None:
        """Remove a conversation item from everything the client sees."""
        ...

    def reconfigure(self) -> None:
        """Have ``configure`` called again for every stage; tell the upstream if that changed something."""
        ...

    def record(self, fact: Fact) -> None:
        """Record what became of something; the host fills in the session."""
        ...

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task that lives no longer than the session; its failure follows the stage's policy."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the session, as the verdict ``Close`` would."""
        ...

    async def offered_tools(self) -> list[Tool]:
        """What all ``tools`` hooks of the chain offer to this session, in chain order."""
        ...

    async def answer_tool(self, call: ToolCall, timeout_s: float) -> str | None:
        """Ask the ``tool_call`` hooks in chain order; the first answer wins, None if nobody answers.

        Raises ``HookFailed`` when the plugin that was asked failed or exceeded *timeout_s*. Its text may
        quote arguments: the host does not log it, that is for whoever knows the tool's ``mask``.
        """
        ...
