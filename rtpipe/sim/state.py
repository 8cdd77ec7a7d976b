"""What the parts of one session share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import trio

from .config import Voice
from .conversation import Conversation
from .detector import InputAudioBuffer
from .faults import Fault
from .ids import Ids
from .options import SimOptions
from .sound import Encoding, encoding_of

Emit = Callable[..., Coroutine[Any, Any, None]]
Order = Callable[[Fault], Coroutine[Any, Any, None]]


@dataclass
class State:
    """`config`: the session object of session.created, replaced as a whole by each update. `emit`: sends
    events with nothing in between. `nursery`: of whatever goes on beside the client's events. `order`: a
    fault of the line, where there is one."""

    config: dict[str, Any]
    conversation: Conversation
    ids: Ids
    options: SimOptions
    nursery: trio.Nursery
    emit: Emit
    order: Order | None = None
    buffer: InputAudioBuffer = field(default_factory=InputAudioBuffer)
    voice: Voice | None = None  # of the first assistant audio; from then on it is fixed

    @property
    def has_spoken(self) -> bool:
        return self.voice is not None

    @property
    def input_encoding(self) -> Encoding:
        return encoding_of(self.config["audio"]["input"]["format"])
