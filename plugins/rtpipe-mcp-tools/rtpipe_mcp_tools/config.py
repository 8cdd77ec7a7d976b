"""What the operator writes: one table for each server.

Mistakes are ``ValueError`` here, not ``ConfigError``: msgspec adds to them where in the file they are.
"""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from rtpipe import ConfigError, Secret, http_url

_NAME_PART = re.compile(r"[A-Za-z0-9_-]{0,32}")
Values = dict[str, str | Secret]


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.mcp-tools.servers.NAME]``."""

    command: Annotated[
        tuple[str, ...],
        Meta(description="A server on this machine: the program, by its absolute path, and its arguments."),
    ] = ()
    url: Annotated[
        str,
        Meta(description="Instead: a server that speaks streamable HTTP; https, or http on this machine."),
    ] = ""
    env: Annotated[
        Values,
        Meta(
            description="Of a program: variables of its environment, a text or where a secret is found. It "
            "gets HOME, LOGNAME, PATH, SHELL, TERM and USER besides, and no other."
        ),
    ] = {}
    directory: Annotated[str | None, Meta(description="Of a program: where it runs, an absolute path.")] = (
        None
    )
    headers: Annotated[
        Values, Meta(description="Of a URL: headers of each request, a text or where a secret is found.")
    ] = {}
    bearer: Annotated[
        Secret | None, Meta(description="Of a URL: where the token of `Authorization: Bearer` is found.")
    ] = None
    prefix: Annotated[
        str, Meta(description="Is put before the names of its tools, so that those of two servers differ.")
    ] = ""
    allow: Annotated[
        tuple[str, ...] | None,
        Meta(description="The tools to offer, by the server's names or patterns: get_*. Left out: all."),
    ] = None
    timeout_ms: Annotated[
        int, Meta(ge=1, le=600_000, description="How long the caller waits for an answer of its tools.")
    ] = 5000
    show_errors: Annotated[
        bool,
        Meta(
            description="Tell the model in the server's words why a tool failed. Many servers put into these "
            "what belongs in a log."
        ),
    ] = False

    def __post_init__(self) -> None:
        if bool(self.command) == bool(self.url):
            raise ValueError("give one of command and url")
        if self.command and not self.command[0].startswith("/"):
            raise ValueError(f"command {self.command[0]!r}: write the absolute path of the program")
        if self.directory is not None and not self.directory.startswith("/"):
            raise ValueError(f"directory {self.directory!r}: write an absolute path")
        if self.command and (self.headers or self.bearer is not None):
            raise ValueError("headers and bearer are for a url, not for a command")
        if self.url and (self.env or self.directory is not None):
            raise ValueError("env and directory are for a command, not for a url")
        if self.bearer is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("bearer and an Authorization in headers: give one of them")
        if not _NAME_PART.fullmatch(self.prefix):
            raise ValueError(f"prefix {self.prefix!r}: write up to 32 letters, digits, _ or -")
        if self.url:
            http_url(self.url)

    def revealed_env(self) -> dict[str, str]:
        """The environment of the program. Raises ``ConfigError``."""
        return {name: _reveal(value) for name, value in self.env.items()}

    def revealed_headers(self) -> dict[str, str]:
        """The headers of each request. Raises ``ConfigError``."""
        headers = {name: _reveal(value) for name, value in self.headers.items()}
        if self.bearer is not None:
            headers["Authorization"] = f"Bearer {self.bearer.reveal()}"
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(
                    f"the value of the header {name!r} has characters that a header cannot have"
                )
        return headers


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.mcp-tools]``."""

    servers: Annotated[dict[str, Server], Meta(description="The servers, by what logs call them.")] = {}


def _reveal(value: str | Secret) -> str:
    return value if isinstance(value, str) else value.reveal()
