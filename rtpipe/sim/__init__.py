"""A simulated Realtime model: OpenAI's GA protocol, without OpenAI, without a key, without cost.

    await nursery.start(serve, SimOptions(pace=0))      # a WebSocket address any Realtime client can use
    await run_session(receive, send, SimOptions())      # one session over anything that carries text

It imports nothing else of rtpipe, so that an error in one shows against the other. README.md says what
makes it do what.
"""

from .faults import GRAMMAR, FaultError
from .line import Line
from .options import SimOptions
from .scenario import Scenario, ScenarioError, read_scenario
from .served import Served
from .server import serve
from .session import DEFAULT_MODEL, SimSession, run_session

__all__ = [
    "DEFAULT_MODEL",
    "GRAMMAR",
    "FaultError",
    "Line",
    "Scenario",
    "ScenarioError",
    "Served",
    "SimOptions",
    "SimSession",
    "read_scenario",
    "run_session",
    "serve",
]
