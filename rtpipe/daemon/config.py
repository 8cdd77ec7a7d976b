"""What an operator may write: every option with its unit, its bounds and what it does."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rtpipe.api.plugin import OnError
from rtpipe.daemon.addresses import PassedName, parse_address
from rtpipe.daemon.config_limits import Limits
from rtpipe.daemon.config_observe import Alerts, Audit, Log, Redaction, Signs
from rtpipe.daemon.config_session import Persist, SessionTable
from rtpipe.daemon.config_upstream import Upstream as Upstream


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the tables here."""


class Tls(Struct, frozen=True, kw_only=True):
    """What a listener shows to prove who it is."""

    certificate: Annotated[
        str,
        Meta(description="PEM file of the certificate, followed by those between it and the authority's."),
    ]
    key: Annotated[str, Meta(description="PEM file of its key, without a password.")]
    client_ca: Annotated[
        str | None,
        Meta(
            description="PEM file of an authority. Only clients with a certificate of its are let in here; "
            "stages that authenticate see whom it is for.",
            examples=["/etc/rtpipe/clients-ca.pem"],
        ),
    ] = None


class Listen(Struct, frozen=True, kw_only=True):
    """A door for clients. It serves the Realtime routes, `/healthz` and `/readyz`."""

    address: Annotated[
        str,
        Meta(
            description="Where: `host:port`, `[::1]:8787` for IPv6, `0.0.0.0:8787` for every interface, "
            "`unix:/path` for a Unix socket, or `fd:NAME` for those that the service manager passes by that "
            "name (`FileDescriptorName=`).",
            examples=["127.0.0.1:8787"],
        ),
    ]
    name: Annotated[
        str, Meta(description="What logs call this listener. Empty: its address.", examples=["door"])
    ] = ""
    open: Annotated[
        bool,
        Meta(description="Let everybody in where no stage authenticates; refused otherwise."),
    ] = False
    proxy: Annotated[
        Literal["v2", "forwarded"] | None,
        Meta(
            description="What the balancers in `trusted` say of whom they speak for: `v2`, a PROXY header of "
            "version 2 begins each connection; `forwarded`, each request has `Forwarded` or "
            "`X-Forwarded-For`. Unset: every caller has the balancer's address.",
            examples=["v2"],
        ),
    ] = None
    trusted: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and networks whose word counts for `proxy`; others are who they are.",
            examples=[["10.0.0.0/8", "::1"]],
        ),
    ] = ()
    origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Pages whose browsers may connect, `*` for any; others with an Origin are refused.",
            examples=[["https://app.example"]],
        ),
    ] = ()
    metrics: Annotated[
        bool, Meta(description="Show `/metrics` to everybody who can reach this listener.")
    ] = False
    tls: Annotated[
        Tls | None,
        Meta(
            description="Speak TLS (1.2 or 1.3) and nothing else: PEM files of the certificate with its "
            "chain, and of its key. `rtpipe dev-cert` makes a pair for trying out.",
            examples=[{"certificate": "/etc/rtpipe/server.pem", "key": "/etc/rtpipe/server-key.pem"}],
        ),
    ] = None
    mode: Annotated[
        str,
        Meta(
            description="Of a Unix socket: its permissions, octal. Who may write to it may connect.",
            extra_json_schema={"pattern": "^0?[0-7]{3}$"},
        ),
    ] = "0660"
    group: Annotated[
        str | None,
        Meta(
            description="Of a Unix socket: the group it belongs to, by name or number. Unset: the daemon's.",
            examples=["rtpipe"],
        ),
    ] = None

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.address)

    @property
    def place(self) -> tuple[str, int] | Path | PassedName:
        """Host and port (0: one that is free), the path of a Unix socket, or the name of passed ones."""
        return parse_address(self.address)

    @property
    def url(self) -> str:
        """As clients write it, without a path; a port 0 is not known yet, nor where a passed socket is."""
        if not isinstance(self.place, tuple):
            return self.address
        return f"{'ws' if self.tls is None else 'wss'}://{self.address}"


class Admin(Struct, frozen=True, kw_only=True):
    """A Unix socket to look after the daemon by. Who may open its file may do whatever it offers."""

    socket: Annotated[
        str | None,
        Meta(
            description="Absolute path of the socket. Unset: there is none.",
            examples=["/run/rtpipe/admin.sock"],
        ),
    ] = None
    group: Annotated[
        str | None,
        Meta(
            description="The group whose members may open it too, by name or number (permissions 0660). "
            "Unset: the daemon's user alone (0600).",
            examples=["adm"],
        ),
    ] = None

    @property
    def mode(self) -> int:
        """The socket's permissions."""
        return 0o600 if self.group is None else 0o660


class StageTable(Struct, frozen=True, kw_only=True):
    """The keys that every `[plugins.<stage>]` table has; the others are the plugin's own options."""

    use: Annotated[
        str | None,
        Meta(description="The plugin, when the stage has another name than it.", examples=["name-of-plugin"]),
    ] = None
    enabled: Annotated[bool, Meta(description="`false` leaves the stage out of the chain.")] = True
    timeout_ms: Annotated[
        Annotated[int, Meta(ge=1, le=600_000)] | None,
        Meta(description="What an event hook of the stage may take.", examples=[200]),
    ] = None
    on_error: Annotated[
        OnError | None,
        Meta(
            description="When an event hook fails: `close` the session, `drop` the event or `pass` it on. "
            "Not every plugin allows each. Unset: the plugin's own choice.",
            examples=["close"],
        ),
    ] = None


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration, without the plugins' own options."""

    chain: Annotated[
        tuple[str, ...],
        Meta(
            description="The stages that client events pass in this order, server events in reverse. A stage "
            "has its plugin's name, or a table that says which plugin to `use`."
        ),
    ] = ()
    state_dir: Annotated[
        str | None,
        Meta(
            description="Absolute path of what must outlive the process. Unset: `$STATE_DIRECTORY` (systemd) "
            "or `~/.local/state/rtpipe`.",
            examples=["/var/lib/rtpipe"],
        ),
    ] = None
    watch: Annotated[
        bool,
        Meta(
            description="Look once a second whether these files, or the listeners' certificates, have "
            "changed, and reload when they have."
        ),
    ] = False
    listen: Annotated[
        tuple[Listen, ...],
        Meta(min_length=1, description="Doors for clients: at least one `[[listen]]` with an `address`."),
    ]
    upstream: Annotated[
        tuple[Upstream, ...],
        Meta(
            min_length=1,
            description="Where the model is: at least one `[[upstream]]`, with `name`, `kind`, `url` and "
            "`default_model`.",
        ),
    ]
    limits: Annotated[Limits, Meta(description="Bounds on what callers can use up.")] = Limits()
    session: Annotated[
        SessionTable, Meta(description="What a session survives, and what it keeps for that.")
    ] = SessionTable()
    persist: Annotated[
        Persist, Meta(description="Sessions that outlive the daemon, on the disk and encrypted.")
    ] = Persist()
    log: Annotated[Log, Meta(description="What the daemon says on stderr.")] = Log()
    audit: Annotated[Audit, Meta(description="A record of who connected and what was changed.")] = Audit()
    redaction: Annotated[Redaction, Meta(description="What is taken out of what callers say.")] = Redaction()
    signs: Annotated[Signs, Meta(description="Signs of failure, and when they become alerts.")] = Signs()
    alerts: Annotated[Alerts, Meta(description="Whom to tell of alerts.")] = Alerts()
    admin: Annotated[Admin, Meta(description="The socket of whoever looks after the daemon.")] = Admin()
    plugins: Annotated[
        dict[str, dict[str, Any]], Meta(description="One table of options for each stage.")
    ] = {}

    @property
    def state_path(self) -> Path:
        if self.state_dir:
            return Path(self.state_dir)
        # systemd names several directories with colons between them; the first one is ours.
        if given := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
            return Path(given)
        return Path(os.path.expanduser("~/.local/state/rtpipe"))
