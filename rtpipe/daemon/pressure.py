"""How near the process is to the end of its memory and file descriptors. Near it, nobody else is let in."""

import errno
import logging
import math
import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from rtpipe.session.limits import Budget

log = logging.getLogger("rtpipe.daemon")

LOOK_S: Final = 1.0
MARK: Final = 0.9
"""From this share on, new sessions are refused."""
RELIEF: Final = 0.85
"""Below this share they are taken again."""
SILENCE_S: Final = 10.0
"""Between two lines about what sessions hold together."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_PAGE: Final = resource.getpagesize()


class Pressure:
    """Looks once a second. *memory_limit*: the bytes that the operator allows; None: what the cgroup does.
    *held*: what all sessions hold; when that was too much, it is said."""

    def __init__(self, memory_limit: Callable[[], int | None], held: Budget) -> None:
        self.refuses = ""
        """Why nobody else is let in, as a word: memory, or descriptors. Empty while somebody is."""
        self.refused: Counter[str] = Counter()
        """How many were not let in, by that word."""
        self.used: dict[str, int] = {}
        self.limits: dict[str, int] = {}
        self._memory_limit = memory_limit
        self._held = held
        self._told = 0
        self._silent_until = -math.inf

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await trio.sleep(LOOK_S)

    def look(self) -> None:
        """Measure, and decide."""
        self._measure()
        mark = RELIEF if self.refuses else MARK
        tight = [what for what, limit in self.limits.items() if self.used[what] >= mark * limit]
        before, self.refuses = self.refuses, self.refuses if self.refuses in tight else "".join(tight[:1])
        if self.refuses and self.refuses != before:
            used, limit = self.used[self.refuses], self.limits[self.refuses]
            log.warning("new sessions are refused: %s: %d of %d in use", self.refuses, used, limit)
        elif before and not self.refuses:
            log.warning("new sessions are taken again: there are %s enough", before)
        self._tell_of_held()

    def _tell_of_held(self) -> None:
        """Once for all that the budget refused since the last line: a flood of events is none of lines."""
        now, held = trio.current_time(), self._held
        if held.met > self._told and now >= self._silent_until:
            self._told, self._silent_until = held.met, now + SILENCE_S
            text = "max_held_bytes was too little %d times so far: now %d of %d bytes are held"
            log.warning(text, held.met, held.held, held.limit)

    def _measure(self) -> None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.limits["descriptors"] = descriptors
        try:
            self.used = {
                "memory": resident_bytes(),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "tasks": trio.lowlevel.current_statistics().tasks_living,
            }
            memory = self._memory_limit() or cgroup_bytes()
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.used["descriptors"] = descriptors  # to count them takes one
            return
        if memory is None:
            self.limits.pop("memory", None)
        else:
            self.limits["memory"] = memory


def resident_bytes() -> int:
    """The memory that this process has."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE


def cgroup_bytes(root: Path = _CGROUPS, membership: str | None = None) -> int | None:
    """The memory that the cgroup (version 2) of this process, or one around it, allows; None: all."""
    text = membership if membership is not None else Path("/proc/self/cgroup").read_text("utf-8")
    path = next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)
    if path is None:
        return None
    place, found = root / path.strip("/"), []
    while place.is_relative_to(root):
        limit = place / "memory.max"
        if limit.is_file() and (said := limit.read_text("ascii").strip()) != "max":
            found.append(int(said))
        place = place.parent
    return min(found, default=None)
