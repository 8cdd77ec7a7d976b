from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rtpipe.store import Namespace, Store


@dataclass
class Clock:
    time: float = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with await Store.open(path, now=clock) as store:
        yield store


@pytest.fixture
def space(store: Store) -> Namespace:
    return store.namespace("one")
