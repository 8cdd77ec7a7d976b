"""What the operator writes: one table for each tool.

Mistakes are ``ValueError`` here, not ``ConfigError``: msgspec adds to them where in the file they are.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rtpipe import Secret, http_url

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PLACE = re.compile(r"\{([^{}]*)\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ARGUMENT = re.compile(r"[A-Za-z0-9_-]+")
# What the client library says itself, and what would change where a request goes or ends.
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type"})


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.http-tools.tools.NAME]``."""

    url: Annotated[
        str,
        Meta(
            description="Where the tool is: https, or http on this machine. {name} in the path stands for an "
            "argument."
        ),
    ]
    description: Annotated[
        str, Meta(min_length=1, max_length=4096, description="What the model is told that the tool does.")
    ]
    method: Annotated[
        Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
        Meta(
            description="GET and DELETE send the arguments as the query, the others as JSON. A call by GET "
            "may be cancelled."
        ),
    ] = "POST"
    parameters: Annotated[
        dict[str, Any], Meta(description="The JSON Schema of the arguments, as a table.")
    ] = {}
    parameters_file: Annotated[
        str | None, Meta(description="Instead: the absolute path of a file with that schema in JSON.")
    ] = None
    headers: Annotated[
        dict[str, str | Secret],
        Meta(description="Headers of each request: a text, or where a secret is found."),
    ] = {}
    bearer: Annotated[
        Secret | None, Meta(description="Where the token of `Authorization: Bearer` is found.")
    ] = None
    timeout_ms: Annotated[
        int, Meta(ge=1, le=600_000, description="How long the caller waits for an answer.")
    ] = 5000
    result: Annotated[
        str,
        Meta(
            description="What of a JSON answer is the result, as a dotted path: current.temperature, hits.0. "
            "Empty: all of it."
        ),
    ] = ""
    max_response_bytes: Annotated[
        int, Meta(ge=1, le=16 * 2**20, description="A longer answer is a failure.")
    ] = 256 * 1024

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.parameters and self.parameters_file is not None:
            raise ValueError("parameters and parameters_file: give one of them")
        if self.parameters_file is not None and not self.parameters_file.startswith("/"):
            raise ValueError(f"parameters_file {self.parameters_file!r}: write an absolute path")
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"headers: {name!r} is no header that can be set here")
            if isinstance(value, str) and not (value.isascii() and value.isprintable()):
                raise ValueError(f"headers: the value of {name!r} has characters that a header cannot have")
        if self.bearer is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("bearer and an Authorization in headers: give one of them")

    @property
    def places(self) -> list[str]:
        """The arguments that stand in the path."""
        return PLACE.findall(self.url)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.http-tools]``."""

    tools: Annotated[dict[str, Endpoint], Meta(description="The tools, by their names.")] = {}

    def __post_init__(self) -> None:
        for name in self.tools:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"tools: {name!r} is no name of a tool: write 1 to 64 letters, digits, _ or -"
                )


def _check_url(url: str) -> None:
    head, brace, _ = url.partition("{")
    parts = http_url(url)
    if brace and (len(head) < len(f"{parts.scheme}://{parts.netloc}/") or "{" in parts.query):
        raise ValueError(f"url {url!r}: an argument can stand in the path alone")
    for name in PLACE.findall(parts.path):
        if not _ARGUMENT.fullmatch(name):
            raise ValueError(f"url {url!r}: {{{name}}} is no name of an argument")
    if re.search(r"[{}]", PLACE.sub("", parts.path)):
        raise ValueError(f"url {url!r}: a brace has no other")
