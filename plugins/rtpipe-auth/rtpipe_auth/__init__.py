"""Who may use this gateway, by keys, tokens, client secrets, peers and certificates."""

from rtpipe_auth.config import Config, Key, PeerRule
from rtpipe_auth.plugin import Auth

__all__ = ["Auth", "Config", "Key", "PeerRule"]
