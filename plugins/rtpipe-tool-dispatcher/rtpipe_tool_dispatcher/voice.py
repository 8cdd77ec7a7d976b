"""Who is speaking, so that the dispatcher neither talks over anybody nor asks twice for the same answer."""

import math

import trio

TURN_GRACE_S = 1.0
"""After a turn of the caller's somebody else asks for the answer, nearly always: the time given for it."""
ASKED_S = 35.0
"""A create that no response has come of is lost; longer than a stage may hold one by default."""
FILLER_ASKED_S = 10.0
SPEECH_S = 60.0
"""Speech whose end is never told is over then: longer than people speak without a pause."""
CLIENT_CALL_S = 30.0
"""How long an unanswered call of the client's keeps us from asking."""


class Voice:
    """The speakers of one session, as far as server events tell."""

    def __init__(self) -> None:
        self.responses: set[str] = set()
        """Running responses that are heard."""
        self.owes = False
        """Whether results are in the conversation that no response has taken up."""
        self.create_id: str | None = None
        """The ``event_id`` of our create that no response has come of yet."""
        self.filler_create_id: str | None = None
        self.filler_response: str | None = None
        self.clients: dict[str, float] = {}
        """Calls of the client's, made in one response with ours, and until when they keep us waiting."""
        self._is_alone = False
        self._speech_until_s = -math.inf
        self._turn_until_s = -math.inf
        self._create_until_s = -math.inf
        self._filler_until_s = -math.inf
        self._changed = trio.Event()

    def alone(self, is_alone: bool) -> None:
        """Whether nobody is there to hear anything: the client's connection is lost."""
        self._is_alone = is_alone
        self.wake()

    def caller_began(self, now_s: float) -> None:
        """The caller speaks."""
        self._speech_until_s = now_s + SPEECH_S
        self.wake()

    def caller_paused(self) -> None:
        """The caller is silent again."""
        self._speech_until_s = -math.inf
        self.wake()

    def is_speaking(self, now_s: float) -> bool:
        """Whether the caller is."""
        return now_s < self._speech_until_s

    def turn_ended(self, now_s: float) -> None:
        """The caller's turn is over, or somebody has asked for an answer to it."""
        self._turn_until_s = now_s + TURN_GRACE_S
        self.wake()

    def asked(self, create_id: str, now_s: float) -> None:
        """We have asked for the answer."""
        self.create_id, self._create_until_s = create_id, now_s + ASKED_S

    def asked_for_filler(self, create_id: str, now_s: float) -> None:
        """We have asked for a "hold on"."""
        self.filler_create_id, self._filler_until_s = create_id, now_s + FILLER_ASKED_S

    def began(self, response_id: str, *, filler: bool, in_conversation: bool, up_to_date: bool) -> None:
        """A response that is heard has begun. *up_to_date*: it has seen all results that were sent."""
        self.responses.add(response_id)
        if filler:
            self.filler_create_id, self._filler_until_s = None, -math.inf
            self.filler_response = response_id
        elif in_conversation:
            self.create_id, self._create_until_s = None, -math.inf
            if up_to_date:
                self.owes = False
        self.wake()

    def ended(self, response_id: str) -> None:
        """A response is over."""
        self.responses.discard(response_id)
        if self.filler_response == response_id:
            self.filler_response = None
        self.wake()

    def refused(self, event_id: str, *, again: bool, now_s: float) -> None:
        """A create of ours was refused. *again*: because somebody else was quicker."""
        if event_id == self.create_id:
            self.create_id, self._create_until_s = None, -math.inf
            self.owes = self.owes and again
            self.turn_ended(now_s)
        elif event_id == self.filler_create_id:
            self.filler_create_id, self._filler_until_s = None, -math.inf
            self.wake()

    def client_answered(self, call_id: str, now_s: float) -> None:
        """The client has answered a call of its own; its create comes next."""
        if self.clients.pop(call_id, None) is not None:
            self.turn_ended(now_s)

    def wait_s(self, now_s: float, *, for_filler: bool = False) -> float:
        """For how long we must not ask for a response: 0 not at all, infinite until something changes."""
        if self.responses or (for_filler and self._is_alone):
            return math.inf
        until = [self._speech_until_s, self._turn_until_s, self._create_until_s, self._filler_until_s]
        if not for_filler:
            until += self.clients.values()
        return max(0.0, max(until) - now_s)

    def wake(self) -> None:
        """Something changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def change(self, timeout_s: float) -> None:
        """Wait until something has changed, at most *timeout_s*. May be infinite: responses end."""
        with trio.move_on_after(timeout_s):
            await self._changed.wait()

    def upstream_replaced(self) -> None:
        """What was running has ended with the last upstream. What was asked is asked of the next one."""
        self.responses.clear()
        self._speech_until_s = -math.inf
        self.filler_response = None
        self.wake()
