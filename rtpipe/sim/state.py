"""What the parts of one session share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import trio

from .conversation import Conversation
from .faults import Fault
from .ids import Ids
from .options import SimOptions

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
    has_spoken: bool = False  # there is assistant audio, so the voice is fixed
