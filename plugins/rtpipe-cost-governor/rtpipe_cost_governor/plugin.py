"""The governor: reserves before money is spent, bills what was, and ends what would cost too much."""

import logging
from collections import Counter
from typing import Any, ClassVar

import msgspec

from rtpipe import (
    Command,
    DialRequest,
    Drop,
    Event,
    Health,
    Hold,
    Host,
    OnError,
    OverLimit,
    Plugin,
    Refused,
    Route,
    Session,
    StoreError,
    Verdict,
    facts,
    on_client,
    on_server,
    reject,
)
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM, Client, Server
from rtpipe_cost_governor import billing, landing, rates, report, savings
from rtpipe_cost_governor.alarms import Alarms
from rtpipe_cost_governor.bill import bill_for
from rtpipe_cost_governor.books import Books, Periods, Reserved, counter_keys
from rtpipe_cost_governor.commands import COMMANDS
from rtpipe_cost_governor.config import Caps, Config, micro
from rtpipe_cost_governor.prices import Table, is_exact
from rtpipe_cost_governor.state import (
    LEAST_ANSWER_TOKENS,
    OUTPUT_TOKENS_PER_S,
    State,
    worst_cost,
)

log = logging.getLogger(__name__)

REACHED = "cost_limit_reached"
_ENVELOPE = 1.1
"""A delta is longer than the audio in it: its type and ids are a tenth at most, at 1 kB and more."""


class CostGovernor(Plugin[Config, State]):
    """Holds every answer until what it may cost is reserved, and writes down what it did cost."""

    # Without it money is spent that nobody counts.
    on_error: ClassVar[OnError] = "close"

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self.table = Table(config.prices, config.aliases)
        # What has no price is as dear as anything is.
        self.fallback = self.table.price("", "")
        self.fallback_heard = self.table.price("", "", "transcription")
        self.periods = Periods(config.zone)
        self.live: set[Session[State]] = set()
        self.by_principal: Counter[str] = Counter()
        self.sharing: Counter[str] = Counter()
        """Live sessions that count on a counter."""
        self.goodbye = micro(config.goodbye_usd)
        self.worst_overshoot = 0
        self.warned: set[str] = set()
        self._writing = 0

    def startup(self) -> None:
        self.books = Books(self.store, self.periods, self.config.retention_days)
        self.alarms = Alarms(self)

    # --- a session's life -----------------------------------------------------------------------------------

    async def session_open(self, session: Session[State]) -> None:
        """Settle what this caller may use. Raises ``Refused`` for one who has sessions enough."""
        state, who = session.state, session.principal
        try:
            state.caps = self.config.caps.of(who.limits)
        except ValueError as exc:
            log.warning("limits of principal %s: %s", who.id, exc)
            raise Refused(503, "limits_unclear", "The limits of this caller cannot be understood.") from None
        most = state.caps.max_sessions
        if most is not None and self.by_principal[who.id] >= most:
            message = f"This caller has {most} sessions already, which is its limit."
            raise Refused(429, "too_many_sessions", message, {"Retry-After": "5"})
        # Before the first await: of two that knock at once the second must find the first.
        self.by_principal[who.id] += 1
        try:
            await self.set_caps(session, state.caps)
        except BaseException:
            self._uncount(session)
            raise
        self.live.add(session)
        if rates.are_limited(state.caps):
            session.start_soon(rates.watch, self, session)

    async def set_caps(self, session: Session[State], caps: Caps) -> None:
        """Have the session live under these caps from now on."""
        state = session.state
        everybody, now = self.config.everybody, self.books.now()
        money = {
            "session": caps.budget_usd,
            "day": caps.day_budget_usd,
            "month": caps.month_budget_usd,
            "all_day": everybody.day_usd,
            "all_month": everybody.month_usd,
        }
        tokens = {
            "session": caps.budget_tokens,
            "day": caps.day_budget_tokens,
            "month": caps.month_budget_tokens,
            "all_day": everybody.day_tokens,
            "all_month": everybody.month_tokens,
        }
        in_micro = {name: None if usd is None else micro(usd) for name, usd in money.items()}
        who = session.principal.id
        self._share(state.counted_on, -1)
        state.caps = caps
        state.money = counter_keys("usd", self.periods, session.id, who, in_micro, now, self.goodbye)
        state.tokens = counter_keys("tokens", self.periods, session.id, who, tokens, now)
        state.counted_on = tuple(cap.key for cap in self._all(state) if cap.limit is not None)
        self._share(state.counted_on, 1)
        await self.books.look(self._all(state))

    async def refresh(self, session: Session[State]) -> None:
        """A new day has new counters."""
        if any(cap.expires_at <= self.books.now() for cap in session.state.money):
            await self.set_caps(session, session.state.caps)

    def upstream_dial(self, session: Session[State], request: DialRequest) -> None:
        """Find the price. Raises ``Refused`` for a model without one, where that is the operator's wish, and
        for a caller who cannot pay for an answer."""
        state = session.state
        state.upstream_kind = request.kind
        state.price = self.table.price(request.model, request.kind)
        if not state.price.known:
            if self.config.unpriced == "refuse":
                raise Refused(
                    403, "model_without_price", "This model has no price here, so it may not be used."
                )
            self.warn_once(f"no price for the model {request.model}: {self.config.unpriced}")
        elif not is_exact(state.price):
            self.warn_once(f"{request.model} is priced as {state.price.found}")
        if not state.admitted and self.is_used_up(session):
            raise Refused(429, REACHED, "This caller's budget is used up.")
        state.admitted = True
        self.regate(session)

    def upstream_replaced(self, session: Session[State]) -> None:
        """What ran is lost with its connection, and its bill: what is reserved for it counts."""
        self._give_up(session.state)
        session.state.prunable.clear()
        session.state.tell_waiters()

    def session_close(self, session: Session[State]) -> None:
        """What is still reserved stays so: nobody will say what it came to."""
        state = session.state
        self._give_up(state)
        self.live.discard(session)
        self._uncount(session)
        if state.landing:
            log.info(
                "session %s was ended: %s; the worst overshoot so far is $%.6f",
                session.id,
                state.landing,
                self.worst_overshoot / 1e6,
            )

    def _give_up(self, state: State) -> None:
        for reserved in (*state.pending, *state.running.values()):
            if reserved is not None and reserved.durable:
                self.books.give_up(reserved)
        state.pending.clear()
        state.running.clear()

    def _uncount(self, session: Session[State]) -> None:
        who = session.principal.id
        self.by_principal[who] -= 1
        if not self.by_principal[who]:
            del self.by_principal[who]
        self._share(session.state.counted_on, -1)
        session.state.counted_on = ()

    def _share(self, keys: tuple[str, ...], by: int) -> None:
        for key in keys:
            self.sharing[key] += by
        gone = [key for key in keys if self.sharing[key] <= 0]
        for key in gone:
            del self.sharing[key]
        self.books.forget_counters(gone)

    # --- before an answer -----------------------------------------------------------------------------------

    @on_client(Client.RESPONSE_CREATE)
    def reserve_first(self, session: Session[State], event: Event) -> Verdict:
        """No answer begins before what it may cost is on the disk."""
        state = session.state
        if state.landing:
            return reject(event, REACHED, "This conversation is being ended: its limit is reached.")
        if state.caps.max_responses is not None and state.responses >= state.caps.max_responses:
            landing.begin(self, session, "Response limit reached")
            return reject(event, REACHED, f"A conversation may have {state.caps.max_responses} responses.")
        data = event.data
        if events.event_id_of(data) is None:
            data = events.with_event_id(data, session.lend_id())
        key = f"create-{state.next_number()}"
        held = event.replace(data) if data is not event.data else event
        session.start_soon(self._reserve_and_release, session, key, held)
        return Hold(key)

    async def _reserve_and_release(self, session: Session[State], key: str, create: Event) -> None:
        state = session.state
        await self.refresh(session)
        most = self.affordable(session, create.data)
        if most < LEAST_ANSWER_TOKENS:
            self._turn_away(session, key)
            return
        cost, tokens = worst_cost(session, create.data, most, self.fallback)
        reserved = self._reservation(session, state.next_number(), cost, tokens, most)
        reserved.event_id = events.event_id_of(create.data) or ""
        try:
            await self.books.reserve(reserved)
        except OverLimit:  # somebody was quicker
            self._turn_away(session, key)
            return
        except StoreError:
            session.drop_held(key, "What this answer may cost cannot be written down now.")
            raise
        state.pending.append(reserved)
        if not session.release(key, create.replace(savings.clamped(create.data, most))):
            state.pending.remove(reserved)
            await self.books.settle(reserved, 0, 0)

    def _turn_away(self, session: Session[State], key: str) -> None:
        """No room for this answer: because all is spent, or because others have reserved what is left."""
        if self.is_used_up(session):
            session.drop_held(key, "The budget is used up.")
            landing.begin(self, session, "Cost limit reached")
        else:
            session.drop_held(
                key, "Answers that run have reserved what is left of the budget; ask again later."
            )

    def affordable(self, session: Session[State], create: Any) -> int:
        """How many tokens an answer may have: the clamp, or what is left of the tightest budget."""
        state = session.state
        most = savings.asked_for(create, state.caps.max_output_tokens)
        for room, unit in ((self.books.room(state.money), 0), (self.books.room(state.tokens), 1)):
            if room is None:
                continue
            base = worst_cost(session, create, 0, self.fallback)[unit]
            thousand = worst_cost(session, create, 1000, self.fallback)[unit] - base
            most = min(most, max(0, (room - base) * 1000 // max(1, thousand)))
        return most

    def is_used_up(self, session: Session[State]) -> bool:
        """Whether it is what was spent, not what others have reserved, that leaves no room."""
        state = session.state
        for unit, caps in ((0, state.money), (1, state.tokens)):
            least = worst_cost(session, {}, LEAST_ANSWER_TOKENS, self.fallback)[unit]
            if any(
                cap.limit is not None and self.books.spent(cap) + cap.kept + least > cap.limit for cap in caps
            ):
                return True
        return False

    def _reservation(
        self, session: Session[State], number: int, cost: int, tokens: int, output_tokens: int
    ) -> Reserved:
        state = session.state
        return Reserved(
            id=f"{session.id}:{number}",
            micro_usd=cost,
            tokens=tokens,
            output_tokens=output_tokens,
            caps=state.money,
            token_caps=state.tokens,
        )

    # --- while it runs --------------------------------------------------------------------------------------

    @on_server(Server.RESPONSE_CREATED)
    def learn_what_runs(self, session: Session[State], event: Event) -> Verdict:
        """The answer to a create that went up, or one that voice activity detection began by itself."""
        state = session.state
        response_id = events.response_id_of(event.data) or ""
        state.responses += 1
        if state.pending:
            # The upstream answers creates in the order they came. When voice activity was quicker, the create
            # is refused, and what was reserved for it pays for this one.
            reserved = state.pending.popleft()
            state.running[response_id] = reserved
            self._meter(session, response_id, reserved.output_tokens)
        else:
            state.running[response_id] = None
            session.start_soon(self._reserve_what_runs, session, response_id)
        if state.caps.max_responses is not None and state.responses >= state.caps.max_responses:
            self.regate(session)
        state.tell_waiters()
        return None

    async def _reserve_what_runs(self, session: Session[State], response_id: str) -> None:
        """It is being spent already, so it counts whatever the caps say; and it is cut where they end."""
        state = session.state
        most = max(0, self.affordable(session, {}))
        clamp = state.caps.max_output_tokens
        cost, tokens = worst_cost(session, {}, clamp, self.fallback)
        reserved = self._reservation(session, state.next_number(), cost, tokens, min(most, clamp))
        if state.landing or most < LEAST_ANSWER_TOKENS:
            self.cancel(session, response_id)
        else:
            self._meter(session, response_id, min(most, clamp))
        await self.books.reserve(reserved, limited=False)
        if response_id in state.running:
            state.running[response_id] = reserved
        else:  # it was over before this was written, and is in the books
            await self.books.settle(reserved, 0, 0)
        self.regate(session)

    def _meter(self, session: Session[State], response_id: str, output_tokens: int) -> None:
        """Cancel the answer when more audio has come than was reserved."""
        seconds = output_tokens / OUTPUT_TOKENS_PER_S
        passed = session.meter.count(DOWNSTREAM, Server.AUDIO_DELTA).bytes
        allowed = int(seconds * savings.audio_bytes_per_second_out(session) * 4 / 3 * _ENVELOPE)
        session.meter.at(
            Server.AUDIO_DELTA, passed + max(1, allowed), lambda: self.cancel(session, response_id)
        )

    def cancel(self, session: Session[State], response_id: str) -> None:
        """Stop an answer that has reached what it may cost."""
        state = session.state
        if response_id in state.running and response_id not in state.cancelled:
            state.cancelled.add(response_id)
            session.send_upstream(Event({"type": Client.RESPONSE_CANCEL, "response_id": response_id}))

    @on_server(Server.ERROR)
    def learn_from_error(self, session: Session[State], event: Event) -> Verdict:
        """A create that the upstream refuses costs nothing."""
        _, event_id, _ = events.error_of(event.data)
        for reserved in session.state.pending:
            if event_id is not None and reserved.event_id == event_id:
                session.state.pending.remove(reserved)
                self.start_soon(self.books.settle, reserved, 0, 0)
                session.state.tell_waiters()
                break
        return None

    # --- after it -------------------------------------------------------------------------------------------

    @on_server(Server.RESPONSE_DONE)
    def bill_response(self, session: Session[State], event: Event) -> Verdict:
        """However it ended, it is billed."""
        state, data = session.state, event.data
        response_id = events.response_id_of(data) or ""
        response = events.response_of(data) or {}
        reserved = state.running.pop(response_id, None)
        state.cancelled.discard(response_id)
        calls = any(
            isinstance(item, dict) and item.get("type") == "function_call"
            for item in response.get("output") or ()
        )
        state.cycle = state.cycle or response_id
        # Where the upstream was lost it is the host that says so, and nobody says what it came to.
        lost = event.origin == "host"
        made = None if lost else bill_for(data, state.price, self.fallback)
        bill = billing.judged(self, session, made, response, reserved, lost=lost)
        if bill.usage.total:
            state.context.billed(bill.usage, session.meter.count(UPSTREAM, Client.AUDIO_APPEND).bytes)
        status = str(response.get("status"))
        if reserved is None:
            # Its reservation is still being written.
            number = state.next_number()
            reserved = self._reservation(session, number, bill.micro_usd, bill.usage.total, 0)
        billing.book(self, session, reserved, bill, status, response_id)
        if not calls:
            state.cycle = ""
        self.alarms.answered(failed=status == "failed")
        savings.judge_cache(session, bill.usage)
        savings.prune(self, session, bill.usage)
        state.tell_waiters()
        return None

    @on_server(Server.TRANSCRIPTION_COMPLETED)
    def bill_transcription(self, session: Session[State], event: Event) -> Verdict:
        """What the caller said was transcribed by a model with a price of its own."""
        config = session.effective
        audio = config.get("audio")
        given = audio.get("input") if isinstance(audio, dict) else None
        chosen = given.get("transcription") if isinstance(given, dict) else None
        model = str((chosen or {}).get("model") or session.model)
        price = self.table.price(model, session.state.upstream_kind, "transcription")
        bill = bill_for(event.data, price, self.fallback_heard)
        if bill is None or not bill.micro_usd:
            return None
        if bill.doubt:
            self.warn_once(f"usage of {model}: {bill.doubt}")
            if not price.known and self.config.unpriced == "allow":
                bill = msgspec.structs.replace(bill, micro_usd=0, parts={})
        reserved = self._reservation(
            session, session.state.next_number(), bill.micro_usd, bill.usage.total, 0
        )
        billing.book(self, session, reserved, bill, "completed", "", model)
        return None

    def look_at(self, session: Session[State]) -> None:
        """After something was spent: alarms, a word to the model, an end."""
        state = session.state
        fraction = 0.0
        for cap in self._all(state):
            if cap.limit is not None:
                part = self.books.spent(cap) / cap.limit
                fraction = max(fraction, part)
                self.alarms.budget(session, cap, part)
        if fraction >= self.config.wrap_up_fraction and not state.wrapping_up:
            state.wrapping_up = True
            session.send_upstream(landing.system_item(self.config.wrap_up_text))
        if not state.landing and self.is_used_up(session):
            landing.begin(self, session, "Cost limit reached")
        for each in self.live:
            self.regate(each)

    def regate(self, session: Session[State]) -> None:
        """Near a cap turns are gated: then no answer begins by itself. Far from it nobody pays for that.

        Far is where every session that shares the budget could begin two answers of the longest kind.
        """
        state = session.state
        near = bool(state.landing)
        most = state.caps.max_output_tokens
        for unit, caps in ((0, state.money), (1, state.tokens)):
            cost = worst_cost(session, {}, most, self.fallback)[unit]
            for cap in caps:
                if cap.limit is not None:
                    room = cap.limit - cap.kept - self.books.total(cap)
                    near = near or room < 2 * cost * self.sharing[cap.key]
        if state.caps.max_responses is not None:
            near = near or state.responses + 1 >= state.caps.max_responses
        if near != state.gated:
            state.gated = near
            session.gate_turns(near)

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

    def _all(self, state: State) -> tuple[Any, ...]:
        return (*state.money, *state.tokens)

    def health(self) -> Health:
        """How many are governed, and how far over a reservation it has gone."""
        over = f"${self.worst_overshoot / 1e6:.6f}"
        return Health(
            True, f"{len(self.live)} sessions; no answer cost more than {over} beyond its reservation"
        )

    def routes(self) -> list[Route]:
        """For ``rtpipe costs``, ``limits`` and ``forget``."""
        return report.routes(self)

    @classmethod
    def commands(cls) -> list[Command]:
        """``rtpipe costs``, ``rtpipe limits``, ``rtpipe forget``."""
        return COMMANDS
