"""rtpipe: the gateway between applications and a realtime speech model.

Plugin authors import everything from here::

    from rtpipe import Event, Plugin, Session, on_client, on_server
"""

from rtpipe.api import facts
from rtpipe.api.addresses import http_url
from rtpipe.api.errors import ConfigError, HookFailed, QueueFull, Refused, RtpipeError
from rtpipe.api.event import Event, Json, UnreadableEvent
from rtpipe.api.hooks import on_client, on_server, watch_client, watch_server
from rtpipe.api.metrics import Distribution, Metric
from rtpipe.api.plugin import Command, Host, NoConfig, OnError, Plugin
from rtpipe.api.principal import ANONYMOUS, END_USER, ROLES, Principal
from rtpipe.api.request import ConnectRequest, DialRequest, Health, Response, Route
from rtpipe.api.secret import Secret
from rtpipe.api.session import Draft, Meter, Session
from rtpipe.api.store import OverLimit, Reservation, Store, StoreError, UnknownReservation
from rtpipe.api.tools import Late, Retry, Tool, ToolCall, tool_error
from rtpipe.api.verdicts import Close, Drop, Hold, Reject, Reply, Verdict, reject

API_VERSION = 1

__all__ = [
    "ANONYMOUS",
    "API_VERSION",
    "END_USER",
    "ROLES",
    "Close",
    "Command",
    "ConfigError",
    "ConnectRequest",
    "DialRequest",
    "Distribution",
    "Draft",
    "Drop",
    "Event",
    "Health",
    "Hold",
    "HookFailed",
    "Host",
    "Json",
    "Late",
    "Meter",
    "Metric",
    "NoConfig",
    "OnError",
    "OverLimit",
    "Plugin",
    "Principal",
    "QueueFull",
    "Refused",
    "Reject",
    "Reply",
    "Reservation",
    "Response",
    "Retry",
    "Route",
    "RtpipeError",
    "Secret",
    "Session",
    "Store",
    "StoreError",
    "Tool",
    "ToolCall",
    "UnknownReservation",
    "UnreadableEvent",
    "Verdict",
    "facts",
    "http_url",
    "on_client",
    "on_server",
    "reject",
    "tool_error",
    "watch_client",
    "watch_server",
]
