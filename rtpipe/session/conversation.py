"""The conversation log: every item in its order, as another upstream can be told it. Bounded in bytes.

It is fed by events that name whole items; nothing is done for a delta. Speech is kept as its transcript:
of a caller where the session has one made, of the model as much as was heard of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from rtpipe.api.event import Json
from rtpipe.protocol import events, items
from rtpipe.protocol.catalogue import Server

_TEXT_OF_ITEM = 256
"""What an item is charged besides its text, so that many small ones are bounded too."""

FEEDS = frozenset(
    {
        Server.ITEM_ADDED,
        Server.ITEM_CREATED,
        Server.ITEM_DONE,
        Server.ITEM_DELETED,
        Server.ITEM_TRUNCATED,
        Server.TRANSCRIPTION_COMPLETED,
        Server.OUTPUT_ITEM_ADDED,
        Server.OUTPUT_ITEM_DONE,
        Server.ARGUMENTS_DONE,
    }
)
"""The server events that it is made of."""


@dataclass(slots=True)
class Entry:
    """One item. *speech_s* is how much audio the model made for it, None until that is known."""

    item: Json
    text_bytes: int = 0
    image_bytes: int = 0
    speech_s: float | None = None
    is_done: bool = False
    """Whether the upstream has said that it is complete."""
    is_text_now: bool = False
    """Whether the upstream that serves the session was told its words instead of its sound."""


class Conversation:
    """What was said, in order."""

    def __init__(self, text_bytes: int, image_bytes: int, spoken_s: Callable[[], float]) -> None:
        """*spoken_s* tells how many seconds of audio the model has sent in all."""
        self._limits = (text_bytes, image_bytes)
        self._spoken_s = spoken_s
        self._entries: dict[str, Entry] = {}
        self._began: dict[str, float] = {}
        self._text_bytes = 0
        self._image_bytes = 0
        self.forgotten = 0
        """Items that found no room any more, the oldest first."""
        self.images_forgotten = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._entries

    @property
    def items(self) -> list[Json]:
        """The items as they are known, in their order."""
        return [entry.item for entry in self._entries.values()]

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By the ids of the items, in their order."""
        return self._entries

    def restore(self, item_id: str, item: Json, *, is_done: bool, speech_s: float | None) -> None:
        """Add an item behind the others, as it was known."""
        self._entries[item_id] = Entry({}, speech_s=speech_s, is_done=is_done)
        self._keep(item_id, item)

    def get(self, item_id: str | None) -> Entry | None:
        return self._entries.get(item_id or "")

    def before(self, item_id: str) -> str | None:
        """The item before this one; None when it is the first."""
        ids = list(self._entries)
        place = ids.index(item_id)
        return ids[place - 1] if place else None

    # --- what the upstream says -----------------------------------------------------------------------------

    def observe(self, kind: str, data: Json) -> None:
        """Learn from one of `FEEDS`."""
        item_id = events.item_id_of(data)
        if item_id is None:
            return
        match kind:
            case Server.ITEM_ADDED | Server.ITEM_CREATED:
                self._added(item_id, data)
            case Server.ITEM_DONE:
                if item_id not in self._entries:
                    self._added(item_id, data)
                self._known(item_id, events.item_of(data))
                if item_id in self._entries:
                    self._entries[item_id].is_done = True
            case Server.OUTPUT_ITEM_ADDED:
                self._began[item_id] = self._spoken_s()
            case Server.OUTPUT_ITEM_DONE:
                self._known(item_id, events.item_of(data))
                self._spoken(item_id)
            case Server.ARGUMENTS_DONE:
                entry, arguments = self._entries.get(item_id), items.arguments_of(data)
                if entry is not None and arguments is not None:
                    self._keep(item_id, items.completed(entry.item, arguments))
            case Server.TRANSCRIPTION_COMPLETED:
                if (entry := self._entries.get(item_id)) is not None:
                    self._keep(item_id, items.with_transcript(entry.item, *items.transcript_of(data)))
            case Server.ITEM_TRUNCATED:
                self.truncate(item_id, *items.truncation_of(data))
            case Server.ITEM_DELETED:
                self.delete(item_id)

    def truncate(self, item_id: str, index: int, end_ms: int) -> None:
        """Of this item's speech only the first *end_ms* were heard."""
        if (entry := self._entries.get(item_id)) is None:
            return
        share = end_ms / 1000 / entry.speech_s if entry.speech_s else None
        self._keep(item_id, items.heard_until(entry.item, index, share))
        if share is not None and share < 1:
            entry.speech_s = end_ms / 1000

    def delete(self, item_id: str) -> None:
        """This item is no part of the conversation any more."""
        entry = self._entries.pop(item_id, None)
        self._began.pop(item_id, None)
        if entry is not None:
            self._text_bytes -= entry.text_bytes
            self._image_bytes -= entry.image_bytes

    def _added(self, item_id: str, data: Json) -> None:
        item, previous = events.item_of(data), items.previous_of(data)
        if item is None or item_id in self._entries:
            return
        entry = Entry({})
        if previous == items.ROOT and self._entries:
            self._entries = {item_id: entry, **self._entries}
        elif previous not in self._entries or previous == next(reversed(self._entries)):
            self._entries[item_id] = entry
        else:
            listed = list(self._entries.items())
            listed.insert(list(self._entries).index(previous) + 1, (item_id, entry))
            self._entries = dict(listed)
        self._keep(item_id, item)

    def _known(self, item_id: str, item: Json | None) -> None:
        """The whole of an item that is known already."""
        entry = self._entries.get(item_id)
        if entry is None or item is None:
            return
        if items.lacks_words(item) and not items.lacks_words(entry.item):
            return  # it tells less than was known: what was transcribed meanwhile
        self._keep(item_id, item)

    def _spoken(self, item_id: str) -> None:
        began_s, entry = self._began.pop(item_id, None), self._entries.get(item_id)
        if entry is not None and began_s is not None:
            entry.speech_s = self._spoken_s() - began_s

    def _keep(self, item_id: str, item: Json) -> None:
        entry = self._entries[item_id]
        self._text_bytes -= entry.text_bytes
        self._image_bytes -= entry.image_bytes
        entry.item, entry.image_bytes = item, items.image_bytes(item)
        entry.text_bytes = _TEXT_OF_ITEM + len(msgspec.json.encode(item)) - entry.image_bytes
        self._text_bytes += entry.text_bytes
        self._image_bytes += entry.image_bytes
        self._make_room()

    def _make_room(self) -> None:
        text_bytes, image_bytes = self._limits
        while self._image_bytes > image_bytes:
            item_id, entry = next((i, e) for i, e in self._entries.items() if e.image_bytes)
            self.images_forgotten += 1
            self._keep(item_id, items.without_images(entry.item))
        while self._text_bytes > text_bytes and len(self._entries) > 1:
            self.forgotten += 1
            self.delete(next(iter(self._entries)))

    # --- what another upstream is told ----------------------------------------------------------------------

    def replay(self) -> Iterator[Json]:
        """The items as another upstream is told them, which is then taken to know them."""
        for item_id, entry in list(self._entries.items()):
            told = items.replayable(entry.item)
            if told is None:
                self.delete(item_id)
                continue
            entry.is_text_now = items.is_speech(entry.item) or items.lacks_words(entry.item)
            yield {**told, "id": item_id}

    def wordless(self) -> int:
        """How many items of speech have no words another upstream could be told."""
        return sum(items.lacks_words(entry.item) for entry in self._entries.values())

    def untold(self) -> int:
        """How many items no client may create."""
        return sum(items.replayable(entry.item) is None for entry in self._entries.values())
