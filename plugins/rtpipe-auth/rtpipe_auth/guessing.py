"""Who presents wrong keys waits, longer each time."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

import trio

from rtpipe import Refused

FREE: Final = 3
"""Failures without a wait."""
FIRST_S: Final = 0.25
LONGEST_S: Final = 4.0
"""And no longer than half of the time that is left to let somebody in: who waited is told what was wrong."""
WAITING: Final = 4
"""How many of one address may wait at a time; who comes then is refused at once."""
FORGET_S: Final = 60.0
"""Since the last failure."""
ADDRESSES: Final = 10_000
"""How many are remembered: past that, the one that has failed longest ago is forgotten."""


@dataclass
class _Entry:
    failures: int = 0
    last_s: float = 0.0
    waiting: int = 0


class Guessing:
    """Failures by address, in a bounded table. All addresses of an IPv6 /64 are one: one caller has them."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def wait(self, address: str) -> None:
        """Wait as long as this address has to before a key of its is looked at, right or wrong.

        Raises ``Refused`` (429) when too many wait already.
        """
        entry = self._entries.get(_place(address))
        if entry is None or entry.failures < FREE or trio.current_time() - entry.last_s > FORGET_S:
            return
        left_s = trio.current_effective_deadline() - trio.current_time()
        delay_s = min(FIRST_S * 2 ** min(entry.failures - FREE, 10), LONGEST_S, left_s / 2)
        if entry.waiting >= WAITING:
            message = "Too many wrong keys came from this address: wait, then try again."
            raise Refused(429, "too_many_failures", message, {"Retry-After": "5"})
        entry.waiting += 1
        try:
            await trio.sleep(max(delay_s, 0))
        finally:
            entry.waiting -= 1

    def failed(self, address: str) -> None:
        """A key that came from this address was wrong."""
        place, now = _place(address), trio.current_time()
        entry = self._entries.setdefault(place, _Entry())
        if now - entry.last_s > FORGET_S:
            entry.failures = 0
        entry.failures += 1
        entry.last_s = now
        self._entries.move_to_end(place)
        if len(self._entries) > ADDRESSES:
            self._entries.popitem(last=False)


def _place(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address  # a user of this machine, say
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.exploded[:19]
