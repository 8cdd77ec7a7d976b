"""The governor: reserves before money is spent, bills what was, and ends what would cost too much."""

import logging
from collections import Counter
from typing import Any, ClassVar

from rtpipe import (
    Command,
    DialRequest,
    Drop,
    Event,
    Health,
    Hold,
    Host,
    OnError,
    Plugin,
    Refused,
    Route,
    Session,
    Verdict,
    facts,
    on_client,
    on_server,
    reject,
)
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client, Server
from rtpipe_cost_governor import answers, billing, landing, rates, report, room, savings
from rtpipe_cost_governor.alarms import Alarms
from rtpipe_cost_governor.books import Books, Periods
from rtpipe_cost_governor.commands import COMMANDS
from rtpipe_cost_governor.config import Config, micro
from rtpipe_cost_governor.prices import Table, is_exact
from rtpipe_cost_governor.state import State, keep, restore

log = logging.getLogger(__name__)


class CostGovernor(Plugin[Config, State]):
    """Holds every answer until what it may cost is reserved, and writes down what it did cost."""

    # Without it money is spent that nobody counts.
    on_error: ClassVar[OnError] = "close"

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self._read_config()
        self.live: set[Session[State]] = set()
        self.by_principal: Counter[str] = Counter()
        self.sharing: Counter[str] = Counter()
        """Live sessions that count on a counter."""
        self.worst_overshoot = 0
        self.warned: set[str] = set()

    def _read_config(self) -> None:
        self.table = Table(self.config.prices, self.config.aliases)
        # What has no price is as dear as anything is.
        self.fallback = self.table.price("", "")
        self.fallback_heard = self.table.price("", "", "transcription")
        self.periods = Periods(self.config.zone)
        self.goodbye = micro(self.config.goodbye_usd)

    def startup(self) -> None:
        self.books = Books(self.store, self.periods, self.config.retention_days)
        self.alarms = Alarms(self)

    def config_changed(self) -> None:
        """Whatever the operator has changed counts for sessions that are there, too."""
        self._read_config()
        self.books.change(self.periods, self.config.retention_days)
        if self.config.kill_switch:
            log.warning("%s: the kill switch is on: %d sessions end", self.stage, len(self.live))
        for session in list(self.live):
            if self.config.kill_switch:
                landing.kill(session)
            else:
                session.start_soon(room.renew, self, session)

    # --- a session's life -----------------------------------------------------------------------------------

    async def session_open(self, session: Session[State]) -> None:
        """Settle what this caller may use. Raises ``Refused`` for one who has sessions enough."""
        who = session.principal
        restore(session)
        try:
            most = room.caps_of(self, session, {}).max_sessions
        except ValueError as exc:
            log.warning("limits of principal %s: %s", who.id, exc)
            raise Refused(503, "limits_unclear", "The limits of this caller cannot be understood.") from None
        if most is not None and self.by_principal[who.id] >= most:
            message = f"This caller has {most} sessions already, which is its limit."
            raise Refused(429, "too_many_sessions", message, {"Retry-After": "5"})
        # Before the first await: of two that knock at once the second must find the first.
        self.by_principal[who.id] += 1
        try:
            await room.set_caps(self, session)
        except BaseException:
            self._uncount(session)
            raise
        self.live.add(session)
        rates.watch_if_limited(self, session)

    def limits_changed(self, session: Session[State]) -> None:
        """Another amount for a caller who is here."""
        session.start_soon(room.renew, self, session)

    def upstream_dial(self, session: Session[State], request: DialRequest) -> None:
        """Find the price. Raises ``Refused`` for a model without one, where that is the operator's wish, for
        a caller who cannot pay for an answer, and for everybody while the kill switch is on."""
        if self.config.kill_switch:
            message = "No conversation may begin just now; try again later."
            raise Refused(503, landing.KILLED, message, {"Retry-After": "60"})
        state = session.state
        state.upstream_kind, state.dialled_model = request.kind, request.model
        state.price = self.table.price(request.model, request.kind)
        if not state.price.known:
            if self.config.unpriced == "refuse":
                raise Refused(
                    403, "model_without_price", "This model has no price here, so it may not be used."
                )
            self.warn_once(f"no price for the model {request.model}: {self.config.unpriced}")
        elif not is_exact(state.price):
            self.warn_once(f"{request.model} is priced as {state.price.found}")
        if not state.admitted and room.is_used_up(self, session):
            raise Refused(429, answers.REACHED, "This caller's budget is used up.")
        state.admitted = True
        room.regate(self, session)

    def upstream_replaced(self, session: Session[State]) -> None:
        """What ran has been ended by the host, and counts as what was reserved for it. What was asked for and
        had not begun is asked again of the next one: its reservation stands."""
        session.state.repeats_metadata = False
        session.state.prunable.clear()

    def session_close(self, session: Session[State]) -> None:
        """What is still reserved stays so: nobody will say what it came to."""
        state = session.state
        answers.give_up(self, state)
        self.live.discard(session)
        self._uncount(session)
        if state.landing:
            log.info(
                "session %s was ended: %s; the worst overshoot so far is $%.6f",
                session.id,
                state.landing,
                self.worst_overshoot / 1e6,
            )

    def _uncount(self, session: Session[State]) -> None:
        who = session.principal.id
        self.by_principal[who] -= 1
        if not self.by_principal[who]:
            del self.by_principal[who]
        room.leave(self, session.state)

    # --- before an answer -----------------------------------------------------------------------------------

    @on_client(Client.RESPONSE_CREATE)
    def reserve_first(self, session: Session[State], event: Event) -> Verdict:
        """No answer begins before what it may cost is on the disk."""
        state = session.state
        if state.landing:
            return reject(event, answers.REACHED, "This conversation is being ended: its limit is reached.")
        if state.caps.max_responses is not None and state.responses >= state.caps.max_responses:
            landing.begin(self, session, landing.RESPONSES)
            return reject(
                event, answers.REACHED, f"A conversation may have {state.caps.max_responses} responses."
            )
        data = event.data
        if events.event_id_of(data) is None:
            data = events.with_event_id(data, session.lend_id())
        key = f"create-{state.next_number()}"
        held = event.replace(data) if data is not event.data else event
        session.start_soon(answers.reserve_and_release, self, session, key, held)
        return Hold(key)

    @on_server(Server.RESPONSE_CREATED)
    def learn_what_runs(self, session: Session[State], event: Event) -> Verdict:
        """The answer to a create that went up, or one that voice activity detection began by itself."""
        answers.begun(self, session, event.data)
        return _unstamped(event)

    @on_server(Server.ERROR)
    def learn_from_error(self, session: Session[State], event: Event) -> Verdict:
        """A create that the upstream refuses costs nothing."""
        answers.refused(self, session, event.data)
        return None

    # --- after it -------------------------------------------------------------------------------------------

    @on_server(Server.RESPONSE_DONE)
    def bill_response(self, session: Session[State], event: Event) -> Verdict:
        """However it ended, it is billed."""
        billing.response(self, session, event)
        return _unstamped(event)

    @on_server(Server.TRANSCRIPTION_COMPLETED)
    def bill_transcription(self, session: Session[State], event: Event) -> Verdict:
        """What the caller said was transcribed by a model with a price of its own."""
        billing.transcription(self, session, event.data)
        return None

    # --- the rest -------------------------------------------------------------------------------------------

    @on_client(Client.ITEM_CREATE)
    def count_items(self, session: Session[State], event: Event) -> Verdict:
        """Images are counted, and what is written will be read."""
        state = session.state
        images, characters = savings.weigh(events.item_of(event.data) or {})
        most = state.caps.max_images
        if images and most is not None and state.images + images > most:
            return reject(event, "image_limit_reached", f"A conversation may have {most} images.")
        if state.landing and event.origin == "client":
            return Drop("This conversation is being ended: its limit is reached.")
        state.images += images
        state.context.images += images
        state.context.characters += characters
        keep(session)
        return None

    @on_server(Server.ITEM_ADDED, Server.ITEM_CREATED, Server.ITEM_DELETED)
    def follow_items(self, session: Session[State], event: Event) -> Verdict:
        """Which items have audio or images in them."""
        savings.follow(session, event)
        return None

    def configure(self, session: Session[State], draft: Any) -> None:
        """Answers of a bounded length, and a conversation that is not read whole for ever."""
        savings.configure(self, session, draft)

    def fact(self, fact: facts.Fact) -> None:
        """Tool calls that take long."""
        if isinstance(fact, facts.ToolCalled):
            self.alarms.tool(fact)

    def warn_once(self, message: str) -> None:
        """Say it in the log, once."""
        if message not in self.warned and len(self.warned) < 1000:
            self.warned.add(message)
            log.warning("%s: %s", self.stage, message)

    def health(self) -> Health:
        """How many are governed, and how far over a reservation it has gone."""
        if self.config.kill_switch:
            return Health(True, "the kill switch is on: nobody may spend anything")
        over = f"${self.worst_overshoot / 1e6:.6f}"
        return Health(
            True, f"{len(self.live)} sessions; no answer cost more than {over} beyond its reservation"
        )

    def warnings(self) -> list[str]:
        """Nobody should wonder why no conversation begins."""
        return ["the kill switch is on: no conversation may begin"] if self.config.kill_switch else []

    async def forget(self, name: str) -> str:
        """Take a caller's name, and its sessions', out of the ledger."""
        count = await self.books.forget(name)
        return f"{count} entries no longer name {name}" if count else ""

    def routes(self) -> list[Route]:
        """For ``rtpipe costs`` and ``rtpipe limits``."""
        return report.routes(self)

    @classmethod
    def commands(cls) -> list[Command]:
        """``rtpipe costs``, ``rtpipe limits``."""
        return COMMANDS


def _unstamped(event: Event) -> Verdict:
    clean = events.without_response_metadata(event.data, answers.STAMP)
    return None if clean is event.data else event.replace(clean)
