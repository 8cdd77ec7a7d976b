"""What happens in an rtpipe gateway as OpenTelemetry traces and metrics."""

from rtpipe_tracing.config import Config
from rtpipe_tracing.plugin import Tracing

__all__ = ["Config", "Tracing"]
