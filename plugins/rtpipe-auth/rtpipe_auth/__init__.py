"""Who may use this gateway: static keys, and local users without one, each with a principal of its own."""

from rtpipe_auth.config import Config, Key, PeerRule
from rtpipe_auth.plugin import Auth

__all__ = ["Auth", "Config", "Key", "PeerRule"]
