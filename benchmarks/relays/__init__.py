"""The relays that are compared."""

from benchmarks.relays.base import Relay, Unavailable
from benchmarks.relays.litellm import LiteLLM
from benchmarks.relays.nginx import Nginx
from benchmarks.relays.own import Rtpipe, RtpipeTraced
from benchmarks.relays.plain import PlainAiohttp

ALL: tuple[type[Relay], ...] = (Rtpipe, RtpipeTraced, LiteLLM, PlainAiohttp, Nginx)

__all__ = ["ALL", "Relay", "Unavailable"]
