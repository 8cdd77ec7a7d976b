"""The lock: who has asked for a response, which one runs, and who is next."""

import logging
from dataclasses import dataclass
from typing import ClassVar

import trio

from rtpipe import Event, Hold, Json, OnError, Plugin, Session, Verdict, on_client, on_server
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import UPSTREAM, Client, Server
from rtpipe_response_lock.config import Config

log = logging.getLogger(__name__)

ALREADY_ACTIVE = "conversation_already_has_active_response"

# One key is enough: behind a held create every other one waits in the host's queue, and is shown to this
# stage only when it is first in it. So at most one create is held at a time.
_NEXT = "next"


@dataclass(slots=True, eq=False)
class Asked:
    """A ``response.create`` on its way to the upstream, or being considered there."""

    event_id: str | None
    sent_before: int
    """How many creates the upstream had been sent in all when this one left here."""


class State:
    """The lock of one session: taken while *asked* or *running* is set."""

    def __init__(self) -> None:
        self.asked: Asked | None = None
        self.running: str | None = None
        """The id of the response that is active in the conversation."""
        self.held_id: str | None = None
        """The ``event_id`` of the create that was held last."""
        self.has_warned = False


class ResponseLock(Plugin[Config, State]):
    """Lets one ``response.create`` of the conversation up at a time; the others wait, in order."""

    # Without the lock two creates may collide, which costs one of the answers, and whoever asked is told by
    # the upstream. Closing would cost the whole call.
    on_error: ClassVar[OnError] = "pass"

    @on_client(Client.RESPONSE_CREATE)
    def take_or_hold(self, session: Session[State], event: Event) -> Verdict:
        """Pass a create if nothing is active, hold it otherwise."""
        data = event.data
        if events.is_out_of_band(data):
            return None
        event_id = events.event_id_of(data)
        if session.state.asked is not None or session.state.running is not None:
            session.state.held_id = event_id
            return Hold(_NEXT)
        self._take(session, event_id)
        return None

    @on_server(Server.RESPONSE_CREATED)
    def learn_what_runs(self, session: Session[State], event: Event) -> None:
        """A response has begun: the one asked for, or one that the upstream started by itself."""
        data = event.data
        if not _is_out_of_band(data):
            session.state.asked = None
            session.state.running = events.response_id_of(data) or ""

    @on_server(Server.RESPONSE_DONE)
    def pass_on_when_done(self, session: Session[State], event: Event) -> None:
        """The running response is over, however it ended."""
        if session.state.running == (events.response_id_of(event.data) or ""):
            self._pass_on(session)

    @on_server(Server.ERROR)
    def learn_from_error(self, session: Session[State], event: Event) -> None:
        """The create may have been refused, by the upstream or by a stage behind this one."""
        state = session.state
        code, event_id, param = events.error_of(event.data)
        if code == ALREADY_ACTIVE:
            # A response that the upstream started by itself was quicker. Its response.created has been
            # seen or will be soon; until then the lock stays as if somebody had asked for it.
            if state.asked is None and state.running is None:
                self._take(session, None)
        elif state.asked is not None and (
            event_id == state.asked.event_id
            if event_id is not None or state.asked.event_id is not None
            else self._is_about_create(session, state.asked, event, param)
        ):
            self._pass_on(session)

    def upstream_replaced(self, session: Session[State]) -> None:
        """The running response ended with its connection. What was asked for may still be answered."""
        if session.state.running is not None:
            self._pass_on(session)

    def _is_about_create(
        self, session: Session[State], asked: Asked, error: Event, param: str | None
    ) -> bool:
        """Whether an error that names no event refuses the create, which had no ``event_id`` to name.

        When in doubt it does not: waiting for the time limit is better than two creates that collide.
        """
        if error.origin != "upstream":
            # A stage refused something; the create, if that has not been sent to the upstream.
            return _sent(session) == asked.sent_before
        return param is not None and (param == "response" or param.startswith(("response.", "response[")))

    def _pass_on(self, session: Session[State]) -> None:
        """Free the lock, and give it to the create that waits, if one does."""
        session.state.asked = session.state.running = None
        # A released event does not come back to this stage, so it takes the lock here. If the host has given
        # it up meanwhile, nothing was released and the lock stays free.
        if session.release(_NEXT):
            self._take(session, session.state.held_id)

    def _take(self, session: Session[State], event_id: str | None) -> None:
        session.state.asked = asked = Asked(event_id, _sent(session))
        session.start_soon(self._free_if_lost, session, asked)

    async def _free_if_lost(self, session: Session[State], asked: Asked) -> None:
        """A create that a later stage swallowed is never answered: it must not hold up the others."""
        await trio.sleep(self.config.created_timeout_s)
        state = session.state
        if state.asked is not asked:
            return
        if not state.has_warned:
            state.has_warned = True
            log.warning(
                "session %s: %s: no response.created came within %g s of a response.create: the next one "
                "goes (said once a session)",
                session.id,
                self.stage,
                self.config.created_timeout_s,
            )
        self._pass_on(session)


def _is_out_of_band(data: Json) -> bool:
    """Whether a response stays outside the conversation: its conversation is null. Where an upstream leaves
    the field out, the response counts as one of the conversation, as nearly all are."""
    return (events.response_of(data) or {}).get("conversation_id", "") is None


def _sent(session: Session[State]) -> int:
    return session.meter.count(UPSTREAM, Client.RESPONSE_CREATE).frames
