"""The end of a session whose caller's token has expired."""

from collections.abc import Callable
from typing import Any, Final

import trio

from rtpipe import Event, Json, Session
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Server

CLOSE_CODE: Final = 3000
FINISH_S: Final = 60.0
"""What the turn in hand may still take."""
_LOOK_S: Final = 60.0
"""The wall clock may be set while we wait for it."""


class Turn:
    """Whether the model is answering, or waits for what a tool has to say before it goes on."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._owes_results = False
        self._changed = trio.Event()

    def saw(self, kind: str, data: Json) -> None:
        """Learn from a response that began or ended."""
        name = events.response_id_of(data) or ""
        if kind == Server.RESPONSE_CREATED:
            self._running.add(name)
            self._owes_results = False
            return
        self._running.discard(name)
        output = (events.response_of(data) or {}).get("output")
        items = [each for each in output if isinstance(each, dict)] if isinstance(output, list) else []
        self._owes_results = any(each.get("type") == "function_call" for each in items)
        self._changed.set()

    async def finished(self) -> None:
        """Wait until it is over."""
        while self._running or self._owes_results:
            self._changed = trio.Event()
            await self._changed.wait()


async def end_session(session: Session[Any], turn: Turn, now: Callable[[], float], finish: bool) -> None:
    """Wait for the moment, perhaps for the turn, and end the session."""
    expires_at = session.principal.expires_at
    assert expires_at is not None
    while (left := expires_at - now()) > 0:  # noqa: ASYNC110 - a clock sets no event
        await trio.sleep(min(left, _LOOK_S))
    if finish:
        with trio.move_on_after(FINISH_S):
            await turn.finished()
    message = "The token of this session has expired: connect again with another one."
    session.send_downstream(Event(events.error_event("token_expired", message, own_id="")))
    session.close(CLOSE_CODE, "invalid_request_error.token_expired")
