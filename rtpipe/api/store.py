"""What a plugin can keep: atomic counters and keyed records."""

from typing import Protocol


class Store(Protocol):
    """One stage's namespace in the store."""
