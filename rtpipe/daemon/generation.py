"""A generation: what one configuration makes. A reload makes the next; sessions keep theirs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from rtpipe.chain.compile import Chain
from rtpipe.chain.instances import Lineup, StageSpec
from rtpipe.daemon.config import Config, Upstream
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.hooks import PluginRoutes
from rtpipe.daemon.redaction import Redactor
from rtpipe.daemon.sealing import Sealer
from rtpipe.session.limits import SessionLimits


@dataclass(slots=True, eq=False)
class Generation:
    """One configuration in service.

    *loaded* is what the files say, *config* what of it is in force: some of it waits for the next start.
    """

    loaded: Loaded
    config: Config
    specs: Sequence[StageSpec]
    lineup: Lineup
    upstreams: Sequence[Upstream]
    routes: PluginRoutes
    redactor: Redactor = field(init=False)
    sealer: Sealer = field(init=False)
    _users: int = 0
    _left: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.redactor = Redactor(self.config.redaction)
        self.sealer = Sealer(self.config.persist.keys)

    @property
    def chain(self) -> Chain:
        return self.lineup.chain

    @property
    def session_limits(self) -> SessionLimits:
        limits, session = self.config.limits, self.config.session
        return SessionLimits(
            conversation_bytes=session.conversation_bytes,
            image_bytes=session.image_bytes,
            outage_bytes=session.outage_bytes,
            outage_s=session.outage_s,
            rollover_s=session.rollover_s,
            parked_bytes=session.parked_bytes,
            parked_audio_s=session.parked_audio_s,
            resume_window_s=session.resume_window_s,
            bill_s=limits.bill_timeout_s,
            hold_bytes=limits.hold_bytes,
            hold_age_s=limits.hold_age_s,
            inject_events=limits.inject_events,
            watch_events=limits.watch_events,
        )

    @contextmanager
    def in_use(self) -> Iterator["Generation"]:
        """Keep its plugins in service, whatever replaces it meanwhile."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._left.set()

    async def unused(self) -> None:
        """Wait until nobody uses it: as long as the last session that began with it lives."""
        while self._users:
            self._left = trio.Event()
            await self._left.wait()
