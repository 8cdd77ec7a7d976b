"""A chain with the governor in it, on a store of its own, and the events the tests need."""

import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from rtpipe import OverLimit, Principal, Reservation
from rtpipe.testing import ChainHarness, Store
from rtpipe_cost_governor import CostGovernor

STAGE = "cost-governor"
CREATE = {"type": "response.create", "event_id": "c"}


@pytest.fixture
def kit() -> ModuleType:
    """What is in this file, for tests: they cannot import it."""
    return sys.modules[__name__]


class Memory:
    """A store that takes no time: on the real one a clock that jumps runs ahead of the disk."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.open: dict[str, Reservation] = {}
        self.records: dict[str, bytes] = {}
        self.kept_s: dict[str, float] = {}

    def namespace(self, _: str) -> "Memory":
        return self

    async def counter(self, key: str) -> int:
        return self.counters[key]

    async def reserve(self, limits: Any, amount: int, *, id: str, **_: Any) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        for key, limit in limits.items():
            if limit is not None and self.counters[key] + amount > limit:
                raise OverLimit(key, limit, self.counters[key], amount)
        self.counters.update(dict.fromkeys(limits, amount))
        self.open[id] = Reservation(id, amount, tuple(limits), "", 0.0)
        return {key: self.counters[key] for key in limits}

    async def settle(self, id: str, amount: int) -> int:
        reservation = self.open.pop(id)
        self.counters.update(dict.fromkeys(reservation.keys, amount - reservation.amount))
        return amount

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self.records[key], self.kept_s[key] = value, ttl_s


@asynccontextmanager
async def governed(
    *, store: Any = None, principal: Principal | None = None, **options: Any
) -> AsyncIterator[ChainHarness]:
    """A session under the governor, with the test as client and model."""
    given = ("upstream", "model", "session_type", "restores")
    more = {name: options.pop(name) for name in given if name in options}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Store.at(Path(folder) / "store.sqlite3") as own,
            ChainHarness(
                {STAGE: (CostGovernor, options)},
                store=(store or own).namespace,
                principal=principal or Principal(id="kiosk"),
                **more,
            ) as chain,
        ):
            yield chain


def usage(
    text: int = 0,
    audio: int = 0,
    image: int = 0,
    cached: tuple[int, int, int] = (0, 0, 0),
    out: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """As the upstream writes it: *cached* by text, audio and image, *out* by text and audio."""
    return {
        "total_tokens": text + audio + image + sum(out),
        "input_tokens": text + audio + image,
        "output_tokens": sum(out),
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": audio,
            "image_tokens": image,
            "cached_tokens": sum(cached),
            "cached_tokens_details": {
                "text_tokens": cached[0],
                "audio_tokens": cached[1],
                "image_tokens": cached[2],
            },
        },
        "output_token_details": {"text_tokens": out[0], "audio_tokens": out[1]},
    }


def created(response_id: str = "r1") -> dict[str, Any]:
    return {"type": "response.created", "event_id": f"e_{response_id}", "response": {"id": response_id}}


def done(
    response_id: str = "r1", used: dict[str, Any] | None = None, status: str = "completed", output: Any = ()
) -> dict[str, Any]:
    response = {"id": response_id, "status": status, "usage": used, "output": list(output)}
    return {"type": "response.done", "event_id": f"d_{response_id}", "response": response}


async def settled(chain: ChainHarness) -> None:
    """Wait until the disk has what was said. A store takes real time, which a test's clock skips."""
    for _ in range(4):
        await chain.plugin(STAGE).books._store.counter("nothing")
        await chain.settle()


def spent(chain: ChainHarness) -> list[int]:
    """The money of every entry, as the facts have it."""
    return [fact.micro_usd for fact in chain.facts if type(fact).__name__ == "Spent"]


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event["type"] == kind]


async def answer(chain: Any, response_id: str, audio_tokens: int) -> None:
    """An answer of the model's own accord; a thousand tokens cost 0.064 USD."""
    await chain.upstream.send(created(response_id))
    await chain.upstream.send(done(response_id, usage(out=(0, audio_tokens))))
    await chain.settle()
