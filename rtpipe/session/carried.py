"""What is carried from one upstream to the next, so that the conversation goes on."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpipe.api.event import CLIENT, HOST, UPSTREAM_ORIGIN, Event, Json
from rtpipe.protocol import events, items
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import Client, Server
from rtpipe.session.caller_audio import CallerAudio
from rtpipe.session.conversation import FEEDS, Conversation
from rtpipe.session.limits import Share, charge
from rtpipe.session.retelling import Retelling
from rtpipe.session.unanswered import ANSWERS, Unanswered

if TYPE_CHECKING:
    from rtpipe.session.session import Session

LOST = "upstream_connection_lost"
_MESSAGE = "The connection to the model was lost during this answer."
_NOT_WRITTEN = "The connection to the model was lost before this was transcribed."
_MAX_UNWRITTEN = 1000

AUDIO = frozenset({Client.AUDIO_APPEND, Client.AUDIO_COMMIT, Client.AUDIO_CLEAR})
"""The caller's audio, and what becomes of it."""
FOLLOWED = frozenset(
    {
        *FEEDS,
        *ANSWERS,
        Server.RESPONSE_DONE,
        Server.TRANSCRIPTION_FAILED,
        Server.AUDIO_COMMITTED,
        Server.AUDIO_CLEARED,
        Server.SPEECH_STARTED,
        Server.SPEECH_STOPPED,
        Server.TIMEOUT_TRIGGERED,
    }
)
"""The server events that it has to be shown."""


@dataclass(slots=True)
class _Answer:
    """A response that runs: the object it was announced with, what asked for it, and its items: those that
    are done, and the ids of those that are not, with their places in it."""

    response: Json
    asked: Event | None
    origin: str
    output: list[Json] = field(default_factory=list)
    open: dict[str, int] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether nothing but its end is missing, as far as anybody can know."""
        return bool(self.output) and not self.open


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn that was committed: where in the audio it ends if voice activity detection ended it, and whether
    the upstream answers it by itself."""

    item_id: str
    end_ms: float | None
    is_answered: bool


class Carried:
    """The conversation, what is unanswered, what waits, and the answers that run."""

    def __init__(self, session: "Session") -> None:
        limits = session.limits
        self._session = session
        self.log = Conversation(limits.conversation_bytes, limits.image_bytes, lambda: session.meter.spoken_s)
        self.retelling = Retelling(session, self.log)
        self.unanswered = Unanswered()
        self.audio = CallerAudio(limits.caller_audio_bytes)
        self.owes_turn = False
        """Whether the upstream was to answer a turn by itself, and has not begun."""
        self._answers: dict[str, _Answer] = {}
        self._turn: _Turn | None = None
        self._unwritten: deque[str] = deque(maxlen=_MAX_UNWRITTEN)
        self._turn_ends_ms: float | None = None
        self._waiting: deque[Event] = deque()
        self._share = Share(limits.held)
        self._cut = 0
        self._dropped_audio = 0
        self._audio: list[tuple[str, bytes]] = []

    # --- towards the upstream -------------------------------------------------------------------------------

    def sent(self, event: Event) -> None:
        """An event goes out to the upstream."""
        if event.type == Client.AUDIO_APPEND:
            self.audio.append([event.payload])
        elif event.type in (Client.AUDIO_COMMIT, Client.AUDIO_CLEAR):
            self.audio.mark(event.type, event.payload)
        else:
            self.unanswered.sent(event)

    def keep(self, event: Event) -> str:
        """An event waits for the next upstream; returns its fate. When there is no more room, the oldest
        audio goes first."""
        room, size = self._session.limits.outage_bytes, charge(event)
        while (self._waiting and self._share.held + size > room) or not self._share.take(size):
            oldest = next((e for e in self._waiting if e.type == Client.AUDIO_APPEND), None)
            if oldest is None and event.type == Client.AUDIO_APPEND:
                self._dropped_audio += 1
                return "lost"
            if oldest is None:
                message = "The connection to the model is being renewed, and too many events wait for it."
                cause = events.event_id_of(event.data)
                self._session.client_edge.tell("event_queue_full", message, cause, by_upstream=True)
                return "refused"
            self._waiting.remove(oldest)
            self._share.give(charge(oldest))
            self._dropped_audio += 1
        self._waiting.append(event)
        return "kept"

    def next_waiting(self) -> Event | None:
        """The next event that waits, if any."""
        if not self._waiting:
            return None
        event = self._waiting.popleft()
        self._share.give(charge(event))
        return event

    def closed(self) -> None:
        """The session is over: nothing that waits is charged any more."""
        self._share.close()

    def not_answered(self) -> list[Event]:
        """What the upstream was sent and has not answered, and what waits, without the caller's audio."""
        return [event for event in (*self.unanswered, *self._waiting) if event.type not in AUDIO]

    def awaited(self, item_id: str) -> str | None:
        """What the upstream is still to do with this item: the type of the last event that creates or deletes
        it and is not answered."""
        types = (Client.ITEM_CREATE, Client.ITEM_DELETE)
        about = [
            e.type for e in self.not_answered() if e.type in types and events.item_id_of(e.data) == item_id
        ]
        return about[-1] if about else None

    # --- from the upstream ----------------------------------------------------------------------------------

    def observe(self, kind: str, data: Json) -> bool:
        """Learn from one of `FOLLOWED`. Returns whether it is about what the host told this upstream again,
        which nobody else is to see."""
        item_id = events.item_id_of(data) or ""
        if self.retelling.is_echo(kind, item_id):
            return True
        if kind == Server.ERROR:
            return self._refused(events.error_of(data)[1])
        self.unanswered.item(kind, data)
        if kind in FEEDS:
            self.log.observe(kind, data)
            self._settle()
        match kind:
            case Server.OUTPUT_ITEM_ADDED | Server.OUTPUT_ITEM_DONE:
                self._output(kind, item_id, data)
            case Server.RESPONSE_DONE:
                if (answer := self._answers.pop(events.response_id_of(data) or "", None)) is not None:
                    self._session.parking.pausing.ended(data, self._asked_again(answer))
            case Server.SPEECH_STARTED:
                self.audio.speaking = True
            case Server.SPEECH_STOPPED | Server.TIMEOUT_TRIGGERED:
                self._turn_ends_ms = events.audio_end_of(data)
            case Server.AUDIO_CLEARED:
                self.audio.settled(Client.AUDIO_CLEAR)
            case Server.TRANSCRIPTION_COMPLETED | Server.TRANSCRIPTION_FAILED if item_id in self._unwritten:
                self._unwritten.remove(item_id)
        return False

    def _output(self, kind: str, item_id: str, data: Json) -> None:
        answer, item = self._answers.get(events.response_id_of(data) or ""), events.item_of(data)
        if answer is None or item is None:
            return
        if kind == Server.OUTPUT_ITEM_ADDED:
            answer.open[item_id] = items.place_of(data)
        else:
            answer.open.pop(item_id, None)
            answer.output.append(item)

    def committed(self, item_id: str, *, by_voice: bool, answers: bool, writes: bool) -> None:
        """A turn was committed as this item. *answers*: the upstream is going to answer it by itself;
        *writes*: it is going to transcribe it.

        Its audio is kept until the item is there.
        """
        if writes:
            self._unwritten.append(item_id)
        self._turn = _Turn(item_id, self._turn_ends_ms if by_voice else None, by_voice and answers)
        self._turn_ends_ms = None
        self._settle()

    @property
    def awaits_words(self) -> bool:
        """Whether the upstream has yet to say what the caller said."""
        return bool(self._unwritten)

    @property
    def tells_turn_again(self) -> bool:
        """Whether the last turn is told again as audio: the upstream has not said what it made of it."""
        return self._turn is not None

    def _settle(self) -> None:
        turn = self._turn
        if turn is None or turn.item_id not in self.log:
            return
        if turn.end_ms is not None:
            self.audio.heard_until(turn.end_ms)
        else:
            self.audio.settled(Client.AUDIO_COMMIT)
        self.owes_turn = turn.is_answered
        self._turn = None

    def began(self, data: Json, origin: str) -> None:
        """A response was created at the wish of *origin*."""
        asked = self.unanswered.response(origin)
        if asked is None and events.is_in_conversation(data):
            self.owes_turn = False
        response = events.response_of(data) or {}
        self._answers[events.response_id_of(data) or ""] = _Answer(response, asked, origin)

    def _refused(self, event_id: str | None) -> bool:
        self.unanswered.refused(event_id)
        return self.retelling.refused(event_id)

    # --- from one to the next -------------------------------------------------------------------------------

    def cut(self, *, retry: bool) -> tuple[list[Json], list[Event]]:
        """The upstream is gone: the end of every answer and transcription it has not ended, and, with
        *retry*, what asks another one for the answers that it has not finished."""
        answers, self._answers = list(self._answers.values()), {}
        own_id = self._session.veil.own_id
        ends = [items.transcription_failed(each, LOST, _NOT_WRITTEN, own_id()) for each in self._unwritten]
        self._unwritten.clear()
        again: list[Event] = []
        for answer in answers:
            ends += self._ends_of_items(answer)
            if answer.is_whole:
                ends.append(items.response_completed(answer.response, answer.output, own_id()))
                continue
            ends.append(items.response_failed(answer.response, answer.output, LOST, _MESSAGE, own_id()))
            self._cut += 1
            if retry and not answer.output:
                # What there is of it is no part of the conversation any more.
                begun = [item_id for item_id in answer.open if item_id in self.log]
                ends += [items.item_deleted(item_id, own_id()) for item_id in begun]
                again += self._asked_again(answer)
        return ends, again

    def _ends_of_items(self, answer: _Answer) -> Iterator[Json]:
        """Of items that nothing but their ends is missing of: whoever was told may have acted on them."""
        own_id, response_id = self._session.veil.own_id, answer.response.get("id")
        for item_id, place in list(answer.open.items()):
            entry = self.log.get(item_id)
            if entry is None or not (entry.is_done or items.is_complete_call(entry.item)):
                continue
            if not entry.is_done:
                yield items.item_echo(Server.ITEM_DONE, entry.item, self.log.before(item_id), own_id())
            yield items.output_item_done(entry.item, response_id, place, own_id())
            del answer.open[item_id]
            answer.output.append(entry.item)

    def _asked_again(self, answer: _Answer) -> Iterator[Event]:
        for item_id in answer.open:
            self.log.delete(item_id)
        if answer.asked is not None:
            # As whose it is decides who hears the answer; a client's is asked by the host now.
            yield answer.asked.copy(HOST if answer.asked.origin == CLIENT else None)
        elif answer.origin == UPSTREAM_ORIGIN:
            yield Event(events.response_create(self._session.veil.own_id()), origin=HOST)

    def loss(self) -> str:
        """What another upstream cannot be told; empty if it gets to know everything."""
        said = [
            (self._cut, "answer(s) cut off"),
            (self.log.wordless(), "item(s) of speech without words"),
            (self.log.untold(), "item(s) that no client may create"),
            (self.log.forgotten, "old item(s) forgotten"),
            (self.log.images_forgotten, "old image(s) forgotten"),
            (self._dropped_audio, "audio event(s) dropped"),
            (round(self.audio.lost_s, 1), "s of the caller's audio"),
        ]
        return ", ".join(f"{count:g} {what}" for count, what in said if count)

    def retell(self) -> Iterator[bytes]:
        """What the new upstream is sent before anything else: the conversation, then the caller's audio.

        What was unanswered waits again, in front of what came since.
        """
        self.retelling.begin()
        self._turn = None
        self._cut = self._dropped_audio = 0
        again = self.unanswered.take()
        self._waiting.extendleft(reversed(again))
        self._share.hold(self._share.held + sum(map(charge, again)))
        for item in self.log.replay():
            yield self.retelling.create(item, None)
        yield from (payload for _, payload in self._audio)

    def take_audio(self) -> None:
        """Decide what of the caller's audio is sent again: `loss` tells what is not."""
        config = self._session.configuration
        self.audio.bytes_per_second = sc.input_bytes_per_second(config.effective)
        self._audio = self.audio.take(detects=sc.detector(config.with_defaults(config.asked)) is not None)
