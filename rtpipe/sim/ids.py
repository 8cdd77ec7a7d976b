"""Ids as OpenAI writes them: a prefix, an underscore, letters and digits."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter


class Ids:
    """Makes the ids of one session. Each prefix counts alone, so that the number of events sent in between
    never changes the id of an item or a response."""

    def __init__(self, seed: int | None) -> None:
        self._seed = secrets.token_hex() if seed is None else str(seed)
        self._made: Counter[str] = Counter()

    def new(self, prefix: str) -> str:
        self._made[prefix] += 1
        source = f"{self._seed}/{prefix}/{self._made[prefix]}"
        return f"{prefix}_{hashlib.blake2b(source.encode(), digest_size=11).hexdigest()}"
