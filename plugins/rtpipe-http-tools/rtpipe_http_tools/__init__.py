"""Tools that are HTTP endpoints."""

from rtpipe_http_tools.config import Config, Endpoint
from rtpipe_http_tools.plugin import HttpTools

__all__ = ["Config", "Endpoint", "HttpTools"]
