"""The lock: who has asked for a response, which one runs, and who is next."""

import logging
from typing import ClassVar

import trio

from rtpipe import (
    Drop,
    Event,
    Hold,
    Json,
    OnError,
    Plugin,
    Session,
    Verdict,
    facts,
    on_client,
    on_server,
    reject,
)
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client, Server
from rtpipe_response_lock.asked import (
    Asked,
    State,
    is_out_of_band,
    may_be_tried_again,
    stamped,
    unstamped,
)
from rtpipe_response_lock.config import Config

log = logging.getLogger(__name__)

ALREADY_ACTIVE = "conversation_already_has_active_response"

MAX_REFUSALS = 10
"""A create that the upstream has refused so often is not sent again: something is wrong with it."""


class ResponseLock(Plugin[Config, State]):
    """Lets one voice at a time be asked for; other creates wait, in order."""

    # Without the lock two creates may collide, which costs one of the answers, and whoever asked is told by
    # the upstream. Closing would cost the whole call.
    on_error: ClassVar[OnError] = "pass"

    def session_open(self, session: Session[State]) -> None:
        if self.config.gate_turns:
            session.gate_turns(True)

    # --- creates --------------------------------------------------------------------------------------------

    @on_client(Client.RESPONSE_CREATE)
    def take_or_hold(self, session: Session[State], event: Event) -> Verdict:
        """Pass a create if nothing is heard, hold it otherwise."""
        state, data = session.state, event.data
        if events.is_out_of_band(data) and not (event.is_heard and events.speaks(data, session.effective)):
            return None
        lent_id = session.lend_id() if events.event_id_of(data) is None else None
        asked = Asked(key=state.new_key(), event=stamped(event, data, lent_id), since_s=session.now())
        if state.is_free and not state.waiting:
            self._goes(session, asked)
            return asked.event
        self._merge(session, asked)
        if len(state.waiting) >= self.config.max_waiting:
            # What the host has given up meanwhile does not count.
            state.waiting = type(state.waiting)(each for each in state.waiting if session.holds(each.key))
        if len(state.waiting) >= self.config.max_waiting:
            message = f"{len(state.waiting)} responses are already waiting; this one was not taken."
            return reject(event, "too_many_waiting", message)
        state.waiting.append(asked)
        return Hold(asked.key, asked.event)

    def _merge(self, session: Session[State], asked: Asked) -> None:
        """Of two automatic creates in a row that ask the same only the later one is needed: it comes behind
        the items that both were sent for."""
        waiting = session.state.waiting
        if waiting and asked.is_automatic and waiting[-1].is_automatic and asked.asks_the_same(waiting[-1]):
            earlier = waiting.pop()
            session.drop_held(earlier.key, "A later one asks the same.", ours=True, outcome="coalesced")

    # --- what the upstream says -----------------------------------------------------------------------------

    @on_server(Server.RESPONSE_CREATED)
    def learn_what_runs(self, session: Session[State], event: Event) -> Verdict:
        """A response has begun: the one asked for, or one that the upstream started by itself."""
        state, data = session.state, event.data
        response_id = events.response_id_of(data) or ""
        asked = state.asked
        if asked is not None and asked.may_be_answered_by(data, echoes=state.echoes):
            state.asked = None
            state.running[response_id] = asked
        elif not is_out_of_band(data):
            state.running[response_id] = None
            if asked is not None and not events.response_metadata(data):
                asked.has_doubt = True
        if not is_out_of_band(data):
            state.unknown = None
        return unstamped(event, data)

    @on_server(Server.RESPONSE_DONE)
    def pass_on_when_done(self, session: Session[State], event: Event) -> Verdict:
        """A response is over, however it ended."""
        state, data = session.state, event.data
        response_id = events.response_id_of(data) or ""
        if response_id in state.running:
            asked = state.running.pop(response_id)
            if asked is not None and self._tries_again(session, asked, data):
                return unstamped(event, data)
            self._pass_on(session)
        return unstamped(event, data)

    @on_server(Server.ERROR)
    def learn_from_error(self, session: Session[State], event: Event) -> Verdict:
        """The create may have been refused, by the upstream or by a stage behind this one."""
        state = session.state
        code, event_id, param = events.error_of(event.data)
        if code == ALREADY_ACTIVE:
            return self._lost_race(session, event_id)
        asked = state.asked
        if asked is not None and (
            event_id == asked.event_id
            if event_id is not None
            # Azure's errors name no event. One about a field of `response` is about the create.
            else param is not None and (param == "response" or param.startswith(("response.", "response[")))
        ):
            state.asked = None
            self._pass_on(session)
        return None

    def upstream_replaced(self, session: Session[State]) -> None:
        """What ran ended with its connection. What was asked for is asked again of the next one."""
        state = session.state
        state.running.clear()
        state.unknown = None
        if state.asked is not None:
            self._goes(session, state.asked)
        self._pass_on(session)

    # --- races, failures, losses ----------------------------------------------------------------------------

    def _lost_race(self, session: Session[State], event_id: str | None) -> Verdict:
        """The upstream was about to answer somebody else: our create goes again when that is over."""
        state = session.state
        asked = state.asked
        if asked is not None and event_id in (asked.event_id, None):
            state.asked = None
        else:
            # An upstream that does not repeat metadata: what began was not the answer to this one.
            mine = (k for k, each in state.running.items() if each is not None and each.event_id == event_id)
            response_id = next(mine, None)
            asked = None if response_id is None else state.running[response_id]
            if response_id is not None:
                state.running[response_id] = None
        if state.is_free:
            # The response that was quicker will be announced soon.
            state.unknown = unknown = object()
            session.start_soon(self._forget_unknown, session, unknown)
        if asked is None or asked.refusals >= MAX_REFUSALS:
            return None
        asked.refusals += 1
        if not self._put_back(session, asked, "requeued"):
            return None
        return Drop("The create goes again when its turn has come.", ours=True)

    def _tries_again(self, session: Session[State], asked: Asked, done: Json) -> bool:
        """Repeat an automatic create whose response failed without a word. A client's is the client's to
        repeat: its SDK may do so too, and both would be answered."""
        if (
            not asked.is_automatic
            or asked.retries >= self.config.retry_failed
            or not may_be_tried_again(done)
        ):
            return False
        if not self._put_back(session, asked, "retried"):
            return False
        asked.retries += 1
        session.state.resting = True
        session.start_soon(self._rest, session, 2.0 ** (asked.retries - 1))
        return True

    def _put_back(self, session: Session[State], asked: Asked, outcome: str) -> bool:
        asked.key = session.state.new_key()
        if not session.put_back(asked.event, asked.key):
            return False
        self._record(session, asked, outcome)
        # Only one is on its way at a time, so what is put back comes before all that waits.
        session.state.waiting.appendleft(asked)
        return True

    async def _rest(self, session: Session[State], seconds: float) -> None:
        await trio.sleep(seconds)
        session.state.resting = False
        self._pass_on(session)

    async def _forget_unknown(self, session: Session[State], unknown: object) -> None:
        await trio.sleep(self.config.created_timeout_s)
        if session.state.unknown is unknown:
            session.state.unknown = None
            self._pass_on(session)

    async def _free_if_lost(self, session: Session[State], asked: Asked, since_s: float) -> None:
        """A create that a later stage swallowed is never answered: it must not hold up the others."""
        await trio.sleep(self.config.created_timeout_s)
        state = session.state
        if state.asked is not asked or asked.since_s != since_s:
            return
        state.asked = None
        state.echoes = state.echoes and not asked.has_doubt
        self._record(session, asked, "orphaned")
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

    # --- whose turn it is -----------------------------------------------------------------------------------

    def _pass_on(self, session: Session[State]) -> None:
        """If the lock is free, give it to the first create that waits."""
        state = session.state
        while state.is_free and state.waiting:
            asked = state.waiting.popleft()
            # A released event does not come back to this stage, so it takes the lock here. What the host has
            # given up meanwhile is not released.
            if session.release(asked.key):
                self._goes(session, asked)

    def _goes(self, session: Session[State], asked: Asked) -> None:
        session.state.asked = asked
        asked.since_s = session.now()
        session.start_soon(self._free_if_lost, session, asked, asked.since_s)

    def _record(self, session: Session[State], asked: Asked, outcome: str) -> None:
        duration_s = session.now() - asked.since_s
        session.record(
            facts.Waited(stage=self.stage, type=asked.event.type, duration_s=duration_s, outcome=outcome)
        )
