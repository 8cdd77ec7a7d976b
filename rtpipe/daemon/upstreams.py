"""Which upstream a session is dialled to, and what the handshake with it says."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from rtpipe.api.errors import ConfigError
from rtpipe.api.request import DialRequest
from rtpipe.daemon.config import Limits, Upstream
from rtpipe.transport.connection import Connection
from rtpipe.transport.dialer import DialFailed, dial
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.tls import client_context

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
    headers = {}
    if upstream.api_key is not None:
        try:
            headers["Authorization"] = f"Bearer {upstream.api_key.reveal()}"
        except ConfigError as exc:  # it was there when we started
            raise DialFailed(f"{upstream.name}: {exc}") from None
    return DialRequest(upstream.name, f"{upstream.url}?{urlencode(query)}", model, headers)


def upstream_tls(upstream: Upstream) -> ssl.SSLContext | None:
    """Whom to trust; ``None``: whom the system trusts. Raises ``OSError`` and ``ValueError``."""
    return None if upstream.ca is None else client_context(Path(upstream.ca))


async def dial_upstream(
    request: DialRequest, limits: Limits, upstream: Upstream, reassembly: Reassembly
) -> Connection:
    """Dial as a session asks. Raises what ``dial`` raises."""
    try:
        tls = upstream_tls(upstream)  # read anew, so that an authority can be replaced
    except (OSError, ValueError) as exc:
        raise DialFailed(f"{upstream.ca} is no authority's certificate any more: {exc}") from None
    try:
        return await dial(
            request.url,
            headers=request.headers.items(),
            timeout_s=limits.connect_timeout_s,
            max_message_bytes=limits.max_message_bytes,
            reassembly=reassembly,
            write_deadline_s=limits.write_deadline_s,
            tls=tls,
        )
    except (ValueError, TypeError, AttributeError) as exc:  # what upstream_dial hooks made of it
        why = f"an address or headers that cannot be dialled: {type(exc).__name__}"
        raise DialFailed(f"{upstream.name}: {why}") from None
