"""A session as bytes: what of it another process needs to go on where this one ended.

What is being said is not in it: audio that no turn was made of, and answers that run.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from rtpipe.api.event import CLIENT, HOST, Event, Json
from rtpipe.protocol import events, items
from rtpipe.protocol.catalogue import UPSTREAM
from rtpipe.session.carried import AUDIO

if TYPE_CHECKING:
    from rtpipe.session.session import Session

VERSION = 1
_HELD_BYTES = 4 * 1024 * 1024
"""What is held is written up to here: with all of it a session might be too large to be written at all."""
_NOBODY_KNOWS = (
    "The gateway was restarted while this was being done. Whether it was done, and with what result, is not "
    "known."
)


class KeptItem(msgspec.Struct, frozen=True, array_like=True):
    """An item of the conversation log. *speech_s* is how much audio the model made for it, None where that
    is not known; *apart* names what it is kept in where that is not here, and then *item* is empty."""

    id: str
    item: Json
    is_done: bool
    speech_s: float | None
    apart: str = ""


class KeptEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event that the upstream has not answered, or was not sent."""

    type: str
    payload: bytes
    origin: str
    audible: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What `take` makes and `restore` wants.

    *asked* is the configuration as the client asked for it: what stages make of it is composed again.
    *kept* is what stages keep, by their names. *recent* and *missed* are the events that the client was sent
    last, and those it was not: only a session that is put away on purpose knows them. *held* are the events
    of the client's and the host's that stages held back, and what waited behind them: they walk again.
    """

    version: int
    session: str
    principal: str
    model: str
    session_type: str
    traceparent: str
    age_s: float
    asked: Json
    items: Sequence[KeptItem]
    hidden: Sequence[str]
    own_ids: tuple[str, int]
    unanswered: Sequence[KeptEvent]
    owes_turn: bool
    turns: int
    tokens: int
    micro_usd: int
    kept: dict[str, msgspec.Raw]
    held: Sequence[KeptEvent] = ()
    recent: Sequence[bytes] = ()
    missed: Sequence[bytes] = ()

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"it is of version {self.version}")


def take(session: "Session", *, put_away: bool = False) -> Snapshot:
    """The session as it is now; *put_away*: nothing more happens to it."""
    carried, sums = session.upstream_edge.carried, session.sums
    recent, missed = session.parking.sent_and_missed() if put_away else ((), ())
    return Snapshot(
        version=VERSION,
        session=session.id,
        principal=session.principal.id,
        model=session.model,
        session_type=session.configuration.session_type,
        traceparent=session.traceparent,
        age_s=trio.current_time() - session.began_s,
        asked=session.configuration.asked,
        items=[
            KeptItem(item_id, entry.item, entry.is_done, entry.speech_s)
            for item_id, entry in carried.log.entries.items()
        ],
        hidden=sorted(session.veil.hidden_items & carried.log.entries.keys()),
        own_ids=session.veil.own_ids,
        unanswered=[_kept(event) for event in carried.not_answered()],
        held=list(_held(session)),
        owes_turn=carried.owes_turn,
        turns=sums.turns,
        tokens=sums.tokens,
        micro_usd=sums.micro_usd,
        kept=dict(session.kept),
        recent=recent,
        missed=missed,
    )


def _kept(event: Event) -> KeptEvent:
    return KeptEvent(event.type, event.payload, event.origin, event.audible)


def _held(session: "Session") -> Iterator[KeptEvent]:
    room = _HELD_BYTES
    for event in session.lane(UPSTREAM).held():
        room -= len(event.payload)
        if room < 0:
            return
        if event.origin in (CLIENT, HOST) and event.type not in AUDIO:
            yield _kept(event)


def _event(kept: KeptEvent) -> Event:
    return Event.received(kept.payload, kept.type, kept.origin, audible=kept.audible)


def restore(snapshot: Snapshot, session: "Session") -> None:
    """Make *session*, of the same id and not opened yet, the one that *snapshot* was taken of: its upstream
    is lost and its client is gone."""
    carried, veil, sums = session.upstream_edge.carried, session.veil, session.sums
    session.began_s -= snapshot.age_s
    session.kept.update(snapshot.kept)
    session.configuration.restore(snapshot.asked)
    sums.turns, sums.tokens, sums.micro_usd = snapshot.turns, snapshot.tokens, snapshot.micro_usd
    veil.restore(snapshot.own_ids)
    for each in snapshot.items:
        carried.log.restore(each.id, each.item, is_done=each.is_done, speech_s=each.speech_s)
    unanswered = [_event(each) for each in snapshot.unanswered]
    for event in unanswered:
        carried.keep(event)
    for held in snapshot.held:
        session.lane(UPSTREAM).enter_again(_event(held))
    # Clients answer their own calls. Those that a stage was making nobody makes any more: the model, which
    # waits for what came of them, is told so.
    created = [item for event in unanswered if (item := events.item_of(event.data)) is not None]
    hidden = set(snapshot.hidden)
    lost = items.calls_without_output(carried.log.items, created, among=hidden)
    for call_id in lost:
        item_id = veil.own_id()
        output = items.call_output(item_id, call_id, _NOBODY_KNOWS)
        carried.log.restore(item_id, output, is_done=True, speech_s=None)
        hidden.add(item_id)
    carried.owes_turn = snapshot.owes_turn or bool(lost)
    veil.recall(carried.log.items, hidden)
    session.parking.allow()
    session.parking.restore(snapshot.recent, snapshot.missed)
    session.client.was_attached = session.upstream.was_attached = True
    session.upstream_edge.learning.restored()
