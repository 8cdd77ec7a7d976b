"""What one session may keep in memory. All of it can be set by the operator."""

from dataclasses import dataclass, field

from rtpipe.api.event import Event

OVERHEAD_BYTES = 1024
"""What an event that waits is charged besides its payload, so that many small ones are bounded too."""


def charge(event: Event) -> int:
    """The bytes that an event counts for while it waits."""
    return len(event.payload) + OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class Budget:
    """Bytes that many queues may hold together. *met*: how often that was too little."""

    limit: int = 256 * 1024 * 1024
    held: int = 0
    met: int = 0


@dataclass(slots=True, eq=False)
class Share:
    """What one queue holds of a budget: *held*."""

    budget: Budget
    held: int = 0

    def take(self, size: int) -> bool:
        """Hold so many bytes more; returns False when all queues together have no room for them."""
        if self.budget.held + size > self.budget.limit:
            self.budget.met += 1
            return False
        self.hold(self.held + size)
        return True

    def give(self, size: int) -> None:
        """Hold so many bytes less."""
        self.hold(self.held - size)

    def hold(self, size: int) -> None:
        """Hold so many bytes, whether there is room or not: for what cannot be refused any more."""
        self.budget.held += size - self.held
        self.held = size

    def close(self) -> None:
        """Hold nothing, and have what comes later count for nobody else."""
        self.hold(0)
        self.budget = Budget()


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session. Bytes are payload bytes, ages are seconds."""

    hold_bytes: int = 32 * 1024 * 1024
    """Held events and what waits behind them, for each stage and direction."""
    held: Budget = field(default_factory=Budget)
    """What waits in all sessions that share it: events that are held, those that no upstream is there for,
    and what is kept for clients that are gone."""
    hold_age_s: float = 30.0
    """How long a stage may hold an event before the host drops it and says so."""
    inject_events: int = 1000
    """Events sent by plugins and the host that have not begun their walk, for each direction."""
    watch_events: int = 1000
    """Events and facts that watchers have not yet seen; later ones are missed and counted."""
    settle_s: float = 1.0
    """How long an ending session waits for what is already on its way to the client."""
    conversation_bytes: int = 1024 * 1024
    """The conversation log without its images; the oldest items are forgotten first."""
    image_bytes: int = 8 * 1024 * 1024
    """Images in the log; of the oldest, words are left."""
    caller_audio_bytes: int = 512 * 1024
    """Audio of the caller's that is no turn yet, kept for another upstream."""
    outage_bytes: int = 4 * 1024 * 1024
    """Client events that wait while there is no upstream, each with `OVERHEAD_BYTES` on top."""
    outage_s: float = 30.0
    """How long a session that has lost its upstream looks for another."""
    parked_bytes: int = 1024 * 1024
    """Server events that wait for a client that is gone, audio apart."""
    parked_audio_s: float = 5.0
    """Audio that waits for it."""
    resume_window_s: float = 60.0
    """How long a session waits for it."""
    rollover_s: float = 60.0
    """How long before the upstream ends the session another is dialled."""
    bill_s: float = 10.0
    """How long an ending session waits for the upstream to say what a cancelled response came to."""
