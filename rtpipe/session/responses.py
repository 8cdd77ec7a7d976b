"""The responses that run and the calls they made, and what there is to say of them when they end."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from rtpipe.api.event import CLIENT, UPSTREAM_ORIGIN, Json
from rtpipe.api.facts import ResponseEnded, ToolCalled
from rtpipe.protocol import events
from rtpipe.protocol.reading import Unreadable, decode
from rtpipe.protocol.usage import read_usage

CALLER = "caller"
"""Who interrupts a response by speaking."""
_CALLS = 100
"""How many unanswered calls are remembered; the oldest is forgotten first."""


@dataclass(slots=True)
class _Running:
    began_s: float
    origin: str
    in_conversation: bool
    first_audio_s: float | None = None
    turn_latency_s: float | None = None
    cancelled_by: str = ""


class Responses:
    """What runs at the upstream. Times are monotonic seconds, and those of *now* when something is told."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._running: dict[str, _Running] = {}
        self.silent: set[str] = set()
        """Responses whose first audio has not come: while there are any, deltas are shown to ``audio``."""
        self._turn_ended_s: float | None = None
        self._calls: dict[str, tuple[str, float, str]] = {}
        self._digest_key = secrets.token_bytes(16)

    def __bool__(self) -> bool:
        return bool(self._running)

    @property
    def running(self) -> set[str]:
        """The ids of those that run."""
        return set(self._running)

    @property
    def await_outputs(self) -> bool:
        """Whether a call of the model's is unanswered."""
        return bool(self._calls)

    def turn_ended(self) -> None:
        """The caller has said what is to be answered now."""
        self._turn_ended_s = self._now()

    def began(self, data: Json, origin: str) -> None:
        """A response was created at the wish of *origin*."""
        response_id = events.response_id_of(data) or ""
        heard, in_conversation = events.is_spoken(data), events.is_in_conversation(data)
        self._running[response_id] = _Running(self._now(), origin, in_conversation)
        if heard:
            self.silent.add(response_id)

    def audio(self, payload: bytes) -> None:
        """A delta of audio came."""
        try:
            response_id = events.response_id_of(decode(payload)) or ""
        except Unreadable:
            return
        if response_id not in self.silent:
            return
        self.silent.remove(response_id)
        running, now = self._running[response_id], self._now()
        running.first_audio_s = now - running.began_s
        if running.in_conversation and self._turn_ended_s is not None:
            running.turn_latency_s = now - self._turn_ended_s
            self._turn_ended_s = None

    def cancelled(self, data: Json, origin: str) -> None:
        """A cancellation goes out: of one response, or of the one in the conversation."""
        named = events.response_id_of(data)
        for response_id, running in self._running.items():
            if response_id == named or (named is None and running.in_conversation):
                running.cancelled_by = running.cancelled_by or origin

    def ended(self, data: Json, model: str) -> ResponseEnded:
        """What became of a response."""
        response_id = events.response_id_of(data) or ""
        self.silent.discard(response_id)
        running = self._running.pop(response_id, None) or _Running(self._now(), UPSTREAM_ORIGIN, False)
        status, reason = events.outcome_of(data)
        by = ""
        if events.was_interrupted(data):
            by = CALLER
        elif events.was_cancelled(data):
            by = running.cancelled_by
        usage = read_usage(data)
        return ResponseEnded(
            response_id=response_id,
            status=status,
            origin=running.origin,
            duration_s=self._now() - running.began_s,
            usage=msgspec.structs.asdict(usage) if usage else {},
            model=model,
            reason=reason,
            interrupted_by=by,
            first_audio_s=running.first_audio_s,
            turn_latency_s=running.turn_latency_s,
            call_ids=tuple(events.calls_in(data)),
        )

    def upstream_replaced(self) -> None:
        """Nothing of what ran will end."""
        self._running.clear()
        self.silent.clear()

    # --- calls of the model's -------------------------------------------------------------------------------

    def called(self, data: Json) -> None:
        """An output item is complete: perhaps a call."""
        item, call_id = events.item_of(data) or {}, events.call_id_of(data)
        if call_id is not None:
            if len(self._calls) >= _CALLS:
                del self._calls[next(iter(self._calls))]
            name = str(item.get("name") or "")
            self._calls[call_id] = (name, self._now(), self._digest(name, str(item.get("arguments") or "")))

    def answered(self, call_id: str) -> str:
        """Somebody has said what became of a call. Returns what stands for it and calls equal to it; "" for
        one that is not remembered."""
        _, _, digest = self._calls.pop(call_id, ("", 0.0, ""))
        return digest

    def output(self, data: Json) -> ToolCalled | None:
        """A client's item goes out: perhaps the output of a call, which is what became of it then."""
        call_id = events.call_id_of(data)
        if call_id is None or call_id not in self._calls:
            return None
        name, began_s, _ = self._calls[call_id]  # until it is recorded
        seconds = self._now() - began_s
        return ToolCalled(name=name, call_id=call_id, stage=CLIENT, duration_s=seconds, status="ok")

    def _digest(self, name: str, arguments: str) -> str:
        # The order of keys and what stands between them make no other call. Keyed, so that nobody finds out
        # what was said by trying: it goes into logs.
        with suppress(Unreadable):
            arguments = msgspec.json.encode(decode(arguments.encode()), order="sorted").decode()
        return blake2b(f"{name}\n{arguments}".encode(), digest_size=8, key=self._digest_key).hexdigest()
