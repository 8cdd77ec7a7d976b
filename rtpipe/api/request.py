"""The handshakes a plugin may judge: the client's with rtpipe, and rtpipe's with an upstream."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rtpipe.api.principal import SESSION


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Somebody knocks. Header names are lower case; neither they nor the query are shown in its repr.

    *subprotocols* are those offered; *role* is what the caller wants to be (``session``, ``tools``,
    ``tap``, ``admin``); *address* is the peer's, *listener* the name of the door it came to. *uid* and *gid*
    are those of the process that connected to a Unix socket, for which the kernel vouches; its address is
    ``uid 1000`` then. Elsewhere they are ``None``. *subject* is that of the client's certificate, verified by
    the authority of the listener, as RFC 4514 writes it: ``CN=billing,O=Example``. ``None``: it showed none.
    """

    path: str
    query: Mapping[str, Sequence[str]] = field(repr=False)
    headers: Mapping[str, Sequence[str]] = field(repr=False)
    subprotocols: Sequence[str] = field(repr=False, default=())
    address: str = ""
    listener: str = ""
    role: str = SESSION
    uid: int | None = None
    gid: int | None = None
    subject: str | None = None

    def header(self, name: str) -> str | None:
        """The only value of a header, ``None`` when it is absent. Raises ``ValueError`` for two."""
        values = self.headers.get(name.lower(), ())
        if len(values) > 1:
            raise ValueError(f"header {name} came {len(values)} times")
        return values[0] if values else None


@dataclass(slots=True)
class DialRequest:
    """The upstream handshake about to be made; an ``upstream_dial`` hook may change it in place.

    *kind* is the upstream's in the configuration: ``openai``, ``azure`` or ``sim``.
    """

    upstream: str
    url: str
    model: str
    headers: dict[str, str] = field(repr=False)
    kind: str = "openai"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer of a plugin's route; a ``dict`` body is sent as JSON."""

    status: int
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTP route a plugin adds.

    *access* says who may call it: ``open`` everybody, ``principal`` whom the authenticating stages know,
    ``admin`` a principal with that role, and whoever may open the admin socket, which has such routes too.
    """

    method: str
    path: str
    handler: Callable[[ConnectRequest, bytes], Awaitable[Response]]
    access: str = "principal"


@dataclass(frozen=True, slots=True)
class Health:
    """One sentence on how a plugin fares."""

    ok: bool
    sentence: str
