"""What the operator writes."""

from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from rtpipe import Secret


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.tracing]``."""

    endpoint: Annotated[
        str,
        Meta(description="Where the collector takes OTLP over HTTP; `/v1/traces` and `/v1/metrics` follow."),
    ] = "http://127.0.0.1:4318"
    headers: Annotated[
        dict[str, Secret],
        Meta(description="Headers for the collector: where each is found (credential, file, env)."),
    ] = msgspec.field(default_factory=dict)
    service_name: Annotated[str, Meta(min_length=1, description="What traces call this gateway.")] = "rtpipe"
    traces: Annotated[bool, Meta(description="Send traces.")] = True
    sample_ratio: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The share of sessions that are traced, where a client's `traceparent` does not say.",
        ),
    ] = 1.0
    metrics: Annotated[bool, Meta(description="Send the gateway's metrics.")] = True
    metrics_interval_s: Annotated[float, Meta(ge=1, le=3600, description="How often.")] = 60.0
    content: Annotated[
        bool,
        Meta(
            description="Send what was said and the arguments of tools too, as far as redaction leaves it. "
            "Arguments come from a stage that runs tools and may have to be told to give them."
        ),
    ] = False
    queue_spans: Annotated[
        int,
        Meta(ge=512, le=100_000, description="Spans that may wait for the collector; more are dropped."),
    ] = 2048
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="What one delivery may take.")] = 5.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("endpoint is no URL of a collector: write http://127.0.0.1:4318, or https://…")
