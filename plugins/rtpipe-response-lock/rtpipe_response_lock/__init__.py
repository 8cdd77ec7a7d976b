"""One answer at a time: a ``response.create`` waits until the running response is done."""

from rtpipe_response_lock.config import Config
from rtpipe_response_lock.plugin import ResponseLock

__all__ = ["Config", "ResponseLock"]
