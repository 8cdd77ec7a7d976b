"""Which images the conversation at the model holds, so that none has to be sent twice."""

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from rtpipe import Json
from rtpipe.protocol import events
from rtpipe.protocol.usage import read_usage

MAX_SENT = 100
MAX_HELD = 1000


class Shown(NamedTuple):
    """An image that was sent: the hash of its bytes and its (width, height), as it came, and its detail."""

    digest: bytes
    detail: str
    size: tuple[int, int]


@dataclass(slots=True)
class Seen:
    """Learned from the model's own echoes: what was refused or deleted is not in it."""

    sent: dict[bytes, Shown] = field(default_factory=dict)
    """What was sent and not echoed yet, by the hash of its URL."""
    held: list[tuple[str, Shown | None]] = field(default_factory=list)
    """(item, image), in the order in which the model got them; None where somebody else sent it."""
    input_tokens: int = 0
    """Of the last response in the conversation."""

    def will_send(self, url: str, shown: Shown) -> None:
        """An image is about to go to the model."""
        self.sent[_digest(url)] = shown
        if len(self.sent) > MAX_SENT:  # refused ones are never echoed
            del self.sent[next(iter(self.sent))]

    def confirmed(self, item_id: str, urls: list[str]) -> None:
        """The model has taken an item with these images."""
        if any(item == item_id for item, _ in self.held):
            return
        self.held += [(item_id, self.sent.pop(_digest(url), None)) for url in urls]
        if len(self.held) > MAX_HELD:
            self.forget()

    def find(self, digest: bytes, detail: str) -> tuple[int, Shown] | None:
        """The image in the conversation with this hash and detail, and its place, counted from 1."""
        for place, (_, shown) in enumerate(self.held, 1):
            if shown is not None and (shown.digest, shown.detail) == (digest, detail):
                return place, shown
        return None

    def deleted(self, item_id: str) -> None:
        """The item is no longer in the conversation."""
        self.held = [entry for entry in self.held if entry[0] != item_id]

    def answered(self, done: Json) -> None:
        """A response is done. One that read less than the one before shows that the conversation was cut, and
        nobody is told where: every image may be gone."""
        usage = read_usage(done)
        if usage is None or (events.response_of(done) or {}).get("conversation_id", "") is None:
            return
        tokens = usage.input_text + usage.input_audio + usage.input_image
        if tokens < self.input_tokens:
            self.forget()
        self.input_tokens = tokens

    def forget(self) -> None:
        """Nothing is known any more of what the conversation holds."""
        self.sent.clear()
        self.held.clear()
        self.input_tokens = 0


def _digest(url: str) -> bytes:
    return hashlib.sha256(url.encode()).digest()
