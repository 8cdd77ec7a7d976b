"""What one session may keep in memory. All of it can be set by the operator."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session. Bytes are payload bytes, ages are seconds."""

    hold_bytes: int = 4 * 1024 * 1024
    """Held events and what waits behind them, for each stage and direction."""
    hold_age_s: float = 30.0
    """How long a stage may hold an event before the host drops it and says so."""
    inject_events: int = 1000
    """Events sent by plugins and the host that have not begun their walk, for each direction."""
    watch_events: int = 1000
    """Events and facts that watchers have not yet seen; later ones are missed and counted."""
    settle_s: float = 1.0
    """How long an ending session waits for what is already on its way to the client."""
    bill_s: float = 10.0
    """How long an ending session waits for the upstream to say what a cancelled response came to."""
