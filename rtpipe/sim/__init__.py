"""A simulated Realtime model: OpenAI's GA protocol, without OpenAI, without a key, without cost.

    await nursery.start(serve, SimOptions(pace=0))      # a WebSocket address any Realtime client can use
    await run_session(receive, send, SimOptions())      # one session over anything that carries text

It imports nothing else of rtpipe, so that an error in one shows against the other. README.md says what
makes it do what.
"""

from .options import SimOptions
from .server import serve
from .session import DEFAULT_MODEL, SimSession, run_session

__all__ = ["DEFAULT_MODEL", "SimOptions", "SimSession", "run_session", "serve"]
