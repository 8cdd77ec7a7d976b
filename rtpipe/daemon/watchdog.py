"""Whether the event loop turns: a thread that names the plugin which keeps it from turning.

Nothing in the process can stop such a plugin. The service manager can: it is told that all is well only while
the loop turns, and starts the process anew when it has not heard so for ``WatchdogSec``.
"""

import logging
import os
import sys
import threading
from collections import Counter
from types import FrameType
from typing import Final

import trio

from rtpipe.api.event import HOST
from rtpipe.chain.guard import call_in
from rtpipe.daemon import service

log = logging.getLogger("rtpipe.watchdog")

BEAT_S: Final = 0.5
STALL_S: Final = 1.0
"""How long the loop may stand still before that is worth a line."""
_LOOK_S: Final = 0.25


class Watchdog:
    """Beats while the loop turns, and looks from a thread whether it does."""

    def __init__(self) -> None:
        self.stalls: Counter[str] = Counter()
        """How often the loop stood still, by the stage that kept it; ``host`` where it was no plugin."""
        self._beats = 0
        self._loop = threading.get_ident()
        self._over = threading.Event()

    async def run(self) -> None:
        """Until cancelled: in the loop that is watched."""
        feed_s = _watchdog_s() / 3
        last_fed_s = float("-inf")
        thread = threading.Thread(target=self._look, name="rtpipe watchdog", daemon=True)
        thread.start()
        try:
            while True:
                self._beats += 1
                if feed_s and trio.current_time() - last_fed_s >= feed_s:
                    last_fed_s = trio.current_time()
                    service.tell(WATCHDOG=1)
                await trio.sleep(min(BEAT_S, feed_s) if feed_s else BEAT_S)
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        """The thread's work. It counts its looks, so that a machine's sleep is not blamed on a plugin."""
        beats, looks = self._beats, 0
        while not self._over.wait(_LOOK_S):
            if self._beats != beats:
                if looks * _LOOK_S >= STALL_S:
                    log.warning("the event loop turns again, after %.1f s", looks * _LOOK_S)
                beats, looks = self._beats, 0
                continue
            looks += 1
            if looks * _LOOK_S == BEAT_S + STALL_S:
                self._tell(sys._current_frames().get(self._loop))

    def _tell(self, frame: FrameType | None) -> None:
        call = call_in(frame)
        self.stalls[call.stage if call else HOST] += 1
        who = f"plugin {call.stage} blocks it in {call.hook}" if call else "no plugin is being called"
        where = f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame else ""
        log.error("the event loop has not turned for %.1f s: %s%s", STALL_S, who, where)


def _watchdog_s() -> float:
    """How often the service manager wants to hear from this process, in seconds; 0 if it does not."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
