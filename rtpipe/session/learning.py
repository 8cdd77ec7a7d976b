"""What the host learns from the few server events that it must know."""

import logging
from typing import TYPE_CHECKING

import trio

from rtpipe.api.errors import QueueFull
from rtpipe.api.event import CLIENT, HOST, UPSTREAM_ORIGIN, Event, Json
from rtpipe.api.facts import TurnStarted
from rtpipe.protocol import events
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import UPSTREAM, Server
from rtpipe.session.carried import FOLLOWED, Carried
from rtpipe.session.composing import Composing
from rtpipe.session.quiet import Quiet
from rtpipe.session.responses import Responses

if TYPE_CHECKING:
    from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.session")

_NO_RESPONSE = "conversation_already_has_active_response"
_EXPIRED = "session_expired"
OBSERVED = frozenset(
    {
        Server.ERROR,
        Server.SESSION_CREATED,
        Server.SESSION_UPDATED,
        Server.RESPONSE_CREATED,
        Server.RESPONSE_DONE,
        Server.ITEM_ADDED,
        Server.ITEM_CREATED,
        Server.OUTPUT_ITEM_ADDED,
        Server.OUTPUT_ITEM_DONE,
        Server.AUDIO_COMMITTED,
        Server.SPEECH_STARTED,
        Server.SPEECH_STOPPED,
        Server.TIMEOUT_TRIGGERED,
        *FOLLOWED,
    }
)
"""The server events that are read here, or by what is carried."""


class Learning:
    """Tells each part of the session what is its concern."""

    def __init__(
        self,
        session: "Session",
        composing: Composing,
        carried: Carried,
        responses: Responses,
        quiet: Quiet,
    ) -> None:
        self._session = session
        self._configuration = session.configuration
        self._composing = composing
        self._turns = composing.turns
        self._carried = carried
        self._responses = responses
        self._quiet = quiet
        self._created = False
        self.greeted = trio.Event()
        """An upstream has said what its defaults are."""
        self.unasked_turn = False
        """Whether a turn is to be answered that the host has to ask for."""

    def restored(self) -> None:
        """The session is another process's: the client has been greeted."""
        self._created = True

    def observe(self, kind: str, data: Json) -> None:
        """Learn from one of `OBSERVED`."""
        self._session.veil.observe(kind, data)
        match kind:
            case Server.SESSION_CREATED:
                self._session_created(data)
            case Server.SESSION_UPDATED:
                self._session_updated(data)
            case Server.ERROR:
                self._error(data)
            case Server.SPEECH_STARTED:
                self._session.meter.stop_playout()
            case Server.SPEECH_STOPPED | Server.TIMEOUT_TRIGGERED:
                self._turns.heard(events.item_id_of(data))
            case Server.AUDIO_COMMITTED:
                self._turn_committed(events.item_id_of(data))
            case Server.RESPONSE_CREATED:
                self._response_created(data)
            case Server.RESPONSE_DONE:
                self._response_done(data)
            case Server.OUTPUT_ITEM_DONE:
                self._responses.called(data)
            case Server.TRANSCRIPTION_COMPLETED | Server.TRANSCRIPTION_FAILED:
                self._quiet.look_again()

    def _session_created(self, data: Json) -> None:
        session = events.session_of(data) or {}
        self._configuration.base = session
        if not self._configuration.effective:
            self._configuration.effective = session
        if self._created:
            self._session.veil.swallow(data)
        self._created = True
        self.greeted.set()
        if self._turns.is_on:
            # It was gated before its detector was known: now that one is.
            self._composing.reconfigure()
        self._session.replacement.expires(events.expires_at(session))

    def _session_updated(self, data: Json) -> None:
        session = events.session_of(data) or {}
        if not self._configuration.confirmed(session):
            self._session.veil.swallow(data)
        self._session.meter.audio_bytes_per_second = sc.audio_bytes_per_second(session)

    def _error(self, data: Json) -> None:
        code, event_id, param = events.error_of(data)
        if code == _EXPIRED and self._session.replacement.is_possible:
            self._session.veil.swallow(data)
        if (code == _NO_RESPONSE or (param or "").startswith("response")) and self._quiet.awaits_client:
            veil = self._session.veil
            if veil.is_lent(event_id) or not veil.is_own(event_id):
                self._quiet.answered()
            return
        self._composing.answer_refusal(data)

    def _turn_committed(self, item_id: str | None) -> None:
        by_voice = self._turns.committed(item_id)
        self._responses.turn_ended()
        self._session.record(TurnStarted(item_id=item_id or "", by="vad" if by_voice else "client"))
        self.unasked_turn = by_voice and self._turns.must_ask
        effective = self._configuration.with_defaults(self._configuration.effective)
        answers, writes = sc.creates_responses(effective), sc.transcribes(effective)
        self._carried.committed(item_id or "", by_voice=by_voice, answers=answers, writes=writes)
        self._quiet.look_again()

    def ask_for_turn(self) -> None:
        """Have a turn answered, once every stage has seen that it was committed."""
        self.unasked_turn = False
        if self._session.ending is None:
            create = Event(events.response_create(self._session.veil.own_id()), origin=HOST)
            try:
                self._turns.asked(self._session.send(UPSTREAM, create, 0))
            except QueueFull:
                log.warning("session %s: a turn stays unanswered, too much is queued", self._session.id)

    def _response_created(self, data: Json) -> None:
        response_id = events.response_id_of(data) or ""
        origin = self._session.veil.origin_of(response_id)
        if origin is None and self._quiet.awaits_client:
            self._quiet.answered()
            origin = CLIENT
        self._responses.began(data, origin or UPSTREAM_ORIGIN)
        self._quiet.look_again()
        self._carried.began(data, origin or UPSTREAM_ORIGIN)
        self._session.parking.pausing.began(response_id)

    def _response_done(self, data: Json) -> None:
        self._quiet.look_again()
        self._session.record(self._responses.ended(data, self._session.model))
