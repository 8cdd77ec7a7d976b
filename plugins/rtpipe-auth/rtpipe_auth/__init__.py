"""Who may use this gateway: static keys, each with a principal of its own."""

from rtpipe_auth.config import Config, Key
from rtpipe_auth.plugin import Auth

__all__ = ["Auth", "Config", "Key"]
