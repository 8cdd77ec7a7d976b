"""What an operator may write about an upstream, and what of it does not fit together."""

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from rtpipe.api.addresses import is_this_machine
from rtpipe.api.secret import Secret
from rtpipe.protocol.models import end_of_life
from rtpipe.transport.websocket import KEEPALIVE_S

ENVIRONMENT = "environment"
_OPENAI = ".openai.com"
_DEFAULT_PATHS = {"openai": "/v1/realtime", "azure": "/openai/v1/realtime", "sim": "/v1/realtime"}


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where the model is."""

    name: Annotated[str, Meta(min_length=1, description="What logs call this upstream.", examples=["openai"])]
    kind: Annotated[
        Literal["openai", "azure", "sim"],
        Meta(
            description="The service: `openai` and whatever speaks as OpenAI does, `azure`, or `sim`, the "
            "simulated model of `rtpipe sim`.",
            examples=["openai"],
        ),
    ]
    url: Annotated[
        str,
        Meta(
            description="Its WebSocket address without a query. A path that does not end in `/realtime` gets "
            "it added; no path means `/v1/realtime`, with kind `azure` `/openai/v1/realtime`. `ws://` only "
            "to this machine itself, and with kind `sim`.",
            examples=["wss://api.openai.com/v1"],
        ),
    ]
    api_key: Annotated[
        Secret | None,
        Meta(
            description="Where rtpipe finds its own key, at each dial: the first present of `credential` "
            "(systemd), `file` and `env`. Kind `openai` needs one, kind `azure` one or a `token`.",
            examples=[{"credential": "openai-api-key", "env": "OPENAI_API_KEY"}],
        ),
    ] = None
    token: Annotated[
        Secret | None,
        Meta(
            description="Of kind `azure`: an Entra token instead of the `api_key`, read at each dial, so "
            "that another process may renew the file.",
            examples=[{"file": "/run/entra/token"}],
        ),
    ] = None
    organization: Annotated[
        str | None,
        Meta(description="Of kind `openai`: the organization that pays.", examples=["org-example"]),
    ] = None
    project: Annotated[
        str | None, Meta(description="Of kind `openai`: the project that pays.", examples=["proj_example"])
    ] = None
    safety_identifier: Annotated[
        bool,
        Meta(
            description="Of kind `openai`: tell the service one caller from another, as OpenAI asks for, by "
            "a keyed hash of the principal and its label `end_user`, never by a name."
        ),
    ] = True
    safety_key: Annotated[
        Secret | None,
        Meta(
            description="The key of that hash. Unset: `api_key`, and a new one changes every identifier.",
            examples=[{"file": "/etc/rtpipe/safety-key"}],
        ),
    ] = None
    proxy: Annotated[
        str | None,
        Meta(
            description="Dial through `http://host:port` (CONNECT) or `socks5://host:port`, which resolves "
            "the name; `environment`: as HTTPS_PROXY (for `ws://` HTTP_PROXY), ALL_PROXY and NO_PROXY say. "
            "Unset: directly, whatever the environment says.",
            examples=["http://proxy.example:3128"],
        ),
    ] = None
    proxy_auth: Annotated[
        Secret | None,
        Meta(description="For the proxy: `user:password`.", examples=[{"file": "/etc/rtpipe/proxy-auth"}]),
    ] = None
    ca: Annotated[
        str | None,
        Meta(
            description="PEM file of the authority to trust here, instead of those the system trusts. "
            "Certificate and name are always verified.",
            examples=["/etc/rtpipe/ca.pem"],
        ),
    ] = None
    keepalive_s: Annotated[
        float,
        Meta(
            ge=1,
            le=300,
            description="How often it is pinged. One that has not answered when the next ping is due is "
            "lost: a connection that died without a word is noticed within twice as long.",
        ),
    ] = KEEPALIVE_S
    default_model: Annotated[
        str,
        Meta(
            min_length=1,
            description="The model of a client that names none; with kind `azure` a deployment.",
            examples=["gpt-realtime-2.1"],
        ),
    ]
    models: Annotated[
        dict[str, str],
        Meta(
            description="Aliases: the model a client asks for, and the one it gets.",
            examples=[{"gpt-realtime": "gpt-realtime-2.1"}],
        ),
    ] = {}

    @property
    def endpoint(self) -> str:
        """The URL that is dialled, but for its query."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/")
        if not path:
            path = _DEFAULT_PATHS[self.kind]
        elif not path.endswith("/realtime"):
            path += "/realtime"
        return parts._replace(path=path).geturl()


def faults(upstream: Upstream) -> Iterator[tuple[str, str]]:
    """(key, sentence for the operator) of whatever no type can tell."""
    try:
        _check_url(upstream)
    except ValueError as exc:
        yield "url", str(exc)
        return
    if upstream.ca is not None and not upstream.url.startswith("wss:"):
        yield "ca", "only wss:// has certificates to verify"
    if upstream.kind == "openai" and upstream.api_key is None:
        yield "api_key", 'missing (kind openai needs one, such as { env = "OPENAI_API_KEY" })'
    if upstream.kind == "azure" and (upstream.api_key is None) == (upstream.token is None):
        yield "api_key", "kind azure needs an api_key or a token, and not both"
    yield from _foreign_options(upstream)
    yield from _proxy_faults(upstream)


def ageing(upstream: Upstream, today: date) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path of keys, sentence for the operator) of every model named here that ends soon, or has ended."""
    service = upstream.kind
    if service == "openai" and not (urlsplit(upstream.url).hostname or "").endswith(_OPENAI):
        return  # another service keeps models as long as it likes, whatever it calls them
    default = upstream.default_model
    named: dict[tuple[str, ...], str] = {("models", asked): m for asked, m in upstream.models.items()}
    if default not in upstream.models:
        named[("default_model",)] = default
    for path, model in named.items():
        if (sentence := end_of_life(model, service, today)) is not None:
            yield path, sentence


def _foreign_options(upstream: Upstream) -> Iterator[tuple[str, str]]:
    own = {
        "azure": ("token",),
        "openai": ("organization", "project", "safety_key"),
    }
    for kind, keys in own.items():
        for key in keys:
            value = getattr(upstream, key)
            if value is not None and upstream.kind != kind:
                yield key, f"only kind {kind} has this"
            elif isinstance(value, str) and not (value.isascii() and value.isprintable()):
                yield key, "has characters that a header cannot have"
    if upstream.safety_key is not None and not upstream.safety_identifier:
        yield "safety_key", "there is no safety_identifier to make with it"


def _proxy_faults(upstream: Upstream) -> Iterator[tuple[str, str]]:
    if upstream.proxy is None or upstream.proxy == ENVIRONMENT:
        if upstream.proxy_auth is not None:
            yield (
                "proxy_auth",
                "belongs to a proxy that is written here: http://host:port, socks5://host:port",
            )
        return
    from rtpipe.transport.proxies import parse_proxy  # it loads trio, and few have a proxy

    try:
        proxy = parse_proxy(upstream.proxy)
    except ValueError as exc:
        yield "proxy", f"{exc}, or {ENVIRONMENT}"
        return
    if proxy.login is not None:
        yield "proxy", "has a user name or password in it: they belong in proxy_auth"


def _check_url(upstream: Upstream) -> None:
    """Raises ``ValueError`` with a sentence."""
    url, kind = upstream.url, upstream.kind
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(f"is no URL: {exc}") from None
    if (
        parts.scheme not in (("wss", "ws") if kind == "sim" or is_this_machine(host) else ("wss",))
        or not host
    ):
        starts = "ws:// or wss://host/…" if kind == "sim" else "wss://host/…"
        here = " (ws:// only to this machine: a key must not cross a network in clear)"
        raise ValueError(f"expected {starts} for kind {kind}{here if parts.scheme == 'ws' else ''}")
    if parts.query or parts.fragment:
        raise ValueError("has a query or fragment: rtpipe adds its own (the model stands in default_model)")
    if parts.username or parts.password:
        raise ValueError("has a user name or password in it: keys belong in api_key")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("has characters that a URL cannot have")
