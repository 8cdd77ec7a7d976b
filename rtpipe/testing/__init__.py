"""The test kit for plugin authors: a chain without sockets, transcripts, the simulated model in process.

Time: with the ``autojump_clock`` fixture of pytest-trio, waiting costs nothing and deadlines are exact.
"""

from rtpipe.session.limits import SessionLimits
from rtpipe.sim import SimOptions
from rtpipe.store import Store
from rtpipe.testing.harness import ChainHarness, End
from rtpipe.testing.recording import transcript_of_log
from rtpipe.testing.sim import sim_upstream
from rtpipe.testing.transcript import TranscriptError, play

__all__ = [
    "ChainHarness",
    "End",
    "SessionLimits",
    "SimOptions",
    "Store",
    "TranscriptError",
    "play",
    "sim_upstream",
    "transcript_of_log",
]
