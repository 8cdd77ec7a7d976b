"""Which upstream a session is dialled to, and what the handshake with it says."""

import hashlib
import hmac
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from rtpipe.api.errors import ConfigError
from rtpipe.api.principal import ANONYMOUS, END_USER, Principal
from rtpipe.api.request import DialRequest
from rtpipe.api.secret import Secret
from rtpipe.daemon.config_limits import Limits
from rtpipe.daemon.config_upstream import ENVIRONMENT, Upstream
from rtpipe.transport.connection import Connection
from rtpipe.transport.contexts import client_context
from rtpipe.transport.dialer import DialFailed, dial
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.proxies import Proxy, parse_proxy, proxy_of_environment

TRANSCRIPTION = "transcription"


def choose(upstreams: Sequence[Upstream], model: str | None) -> tuple[Upstream, str]:
    """The first upstream that knows *model* by name or alias, else the first; and the model to ask it for."""
    for upstream in upstreams:
        if model is not None and (model == upstream.default_model or model in upstream.models):
            return upstream, upstream.models.get(model, model)
    first = upstreams[0]
    model = model or first.default_model
    return first, first.models.get(model, model)


def dial_request(upstream: Upstream, principal: Principal, model: str, intent: str | None) -> DialRequest:
    """The handshake to make. Nothing of the client's is in it but its intent, which is one of two words.

    Secrets are read now, so that a new one needs no restart. Raises ``DialFailed`` when one is gone.
    """
    query = {"intent": intent} if intent == TRANSCRIPTION else {"model": model}
    try:
        headers = _headers(upstream, principal)
    except ConfigError as exc:  # it was there when we started
        raise DialFailed(f"{upstream.name}: {exc}") from None
    url = f"{upstream.endpoint}?{urlencode(query)}"
    return DialRequest(upstream.name, url, model, headers, upstream.kind)


def _headers(upstream: Upstream, principal: Principal) -> dict[str, str]:
    headers: dict[str, str] = {}
    if upstream.api_key is not None:
        key = upstream.api_key.reveal()
        headers |= {"api-key": key} if upstream.kind == "azure" else {"Authorization": f"Bearer {key}"}
    if upstream.token is not None:
        headers["Authorization"] = f"Bearer {upstream.token.reveal()}"
    if upstream.organization is not None:
        headers["OpenAI-Organization"] = upstream.organization
    if upstream.project is not None:
        headers["OpenAI-Project"] = upstream.project
    secret = upstream.safety_key or upstream.api_key
    # A name that everybody shares would have one answer for what another did.
    if upstream.kind == "openai" and upstream.safety_identifier and secret and principal != ANONYMOUS:
        headers["OpenAI-Safety-Identifier"] = safety_identifier(secret, principal)
    return headers


def safety_identifier(secret: Secret, principal: Principal) -> str:
    """64 hexadecimal digits, as long as OpenAI allows, which without *secret* lead to nobody."""
    who = msgspec.json.encode([principal.id, principal.labels.get(END_USER)])
    return hmac.new(secret.reveal().encode(), who, hashlib.sha256).hexdigest()


def proxy_for(upstream: Upstream, url: str) -> Proxy | None:
    """Through whom to dial *url*; ``None``: directly. Raises ``ConfigError``."""
    if upstream.proxy is None:
        return None
    if upstream.proxy == ENVIRONMENT:
        try:
            return proxy_of_environment(url)
        except ValueError as exc:
            raise ConfigError(f"the environment names no usable proxy: {exc}") from None
    proxy = parse_proxy(upstream.proxy)
    if upstream.proxy_auth is None:
        return proxy
    user, colon, password = upstream.proxy_auth.reveal().partition(":")
    if not user or not colon:
        raise ConfigError("proxy_auth is not user:password")
    return Proxy(proxy.kind, proxy.host, proxy.port, (user, password))


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
        proxy = proxy_for(upstream, request.url)
    except ConfigError as exc:
        raise DialFailed(f"{upstream.name}: {exc}") from None
    try:
        return await dial(
            request.url,
            headers=request.headers.items(),
            timeout_s=limits.connect_timeout_s,
            max_message_bytes=limits.max_message_bytes,
            reassembly=reassembly,
            write_deadline_s=limits.write_deadline_s,
            keepalive_s=upstream.keepalive_s,
            tls=tls,
            proxy=proxy,
        )
    except (ValueError, TypeError, AttributeError) as exc:  # what upstream_dial hooks made of it
        why = f"an address or headers that cannot be dialled: {type(exc).__name__}"
        raise DialFailed(f"{upstream.name}: {why}") from None
