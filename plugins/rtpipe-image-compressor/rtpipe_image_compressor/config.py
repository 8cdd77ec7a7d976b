"""What the operator writes."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_HOST = re.compile(r"(?!-)[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.image-compressor]``."""

    max_edge_px: Annotated[
        int, Meta(ge=16, le=8192, description="The longer edge of what the model gets, at most.")
    ] = 800
    quality: Annotated[int, Meta(ge=1, le=95, description="Of a JPEG.")] = 70
    prefer: Annotated[
        Literal["auto", "photo", "screen"],
        Meta(
            description="JPEG for photographs, PNG for screens, whose text must stay legible. auto looks at "
            "each image."
        ),
    ] = "auto"
    detail: Annotated[
        Literal["", "auto", "low", "high"],
        Meta(
            description="The detail with which the model looks at every image; empty: what the client says."
        ),
    ] = ""
    repeat: Annotated[
        Literal["once", "send"],
        Meta(
            description="What becomes of an image that is in the conversation already: a line of text names "
            "the earlier one (once), or it goes again (send)."
        ),
    ] = "once"
    max_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 28, description="A larger image is refused. Bytes as it came.")
    ] = 12 * 1024 * 1024
    max_pixels: Annotated[
        int, Meta(ge=256, le=1_000_000_000, description="An image with more pixels is refused.")
    ] = 50_000_000
    max_waiting: Annotated[
        int,
        Meta(ge=1, le=1000, description="Images of all sessions in work and waiting; one more is refused."),
    ] = 32
    timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=300,
            description="How long an image may take, with waiting for its turn and fetching. Then it is "
            "refused.",
        ),
    ] = 10.0
    fetch_from: Annotated[
        tuple[str, ...],
        Meta(
            description="Hosts from which images are fetched by https, each as name or name:port. Every "
            "other URL is refused."
        ),
    ] = ()

    def __post_init__(self) -> None:
        for host in self.fetch_from:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"fetch_from: {host!r} is not a host such as cdn.example or cdn.example:8443"
                )
