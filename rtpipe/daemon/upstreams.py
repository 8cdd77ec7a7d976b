"""Which upstream a session is dialled to, and what the handshake with it says."""

from collections.abc import Sequence
from urllib.parse import urlencode

from rtpipe.api.request import DialRequest
from rtpipe.daemon.config import Limits, Upstream
from rtpipe.transport.connection import Connection
from rtpipe.transport.dialer import dial

TRANSCRIPTION = "transcription"


def choose(upstreams: Sequence[Upstream], model: str | None) -> tuple[Upstream, str]:
    """The first upstream that knows *model* by name or alias, else the first; and the model to ask it for."""
    for upstream in upstreams:
        if model is not None and (model == upstream.default_model or model in upstream.models):
            return upstream, upstream.models.get(model, model)
    first = upstreams[0]
    model = model or first.default_model
    return first, first.models.get(model, model)


def dial_request(upstream: Upstream, model: str, intent: str | None) -> DialRequest:
    """The handshake to make. Nothing of the client's is in it but its intent, which is one of two words."""
    query = {"intent": intent} if intent == TRANSCRIPTION else {"model": model}
    headers = {"Authorization": f"Bearer {upstream.api_key.reveal()}"} if upstream.api_key else {}
    return DialRequest(upstream.name, f"{upstream.url}?{urlencode(query)}", model, headers)


async def dial_upstream(request: DialRequest, limits: Limits) -> Connection:
    """Dial as a session asks. Raises what ``dial`` raises."""
    return await dial(
        request.url,
        headers=request.headers.items(),
        timeout_s=limits.connect_timeout_s,
        max_message_bytes=limits.max_message_bytes,
        write_deadline_s=limits.write_deadline_s,
    )
