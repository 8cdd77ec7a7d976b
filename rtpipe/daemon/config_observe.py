"""The options of whoever looks on: logs, the audit log, redaction, signs of failure."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rtpipe.api.secret import Secret


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Log(_Struct, frozen=True, kw_only=True):
    """What the daemon says on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important line to write.")
    ] = "info"
    format: Annotated[
        Literal["console", "json"],
        Meta(description="`console` is for people; with `json` each line is an object with the same fields."),
    ] = "console"


class Alerts(_Struct, frozen=True, kw_only=True):
    """Whom to tell of alerts, besides the log and the metrics."""

    webhook: Annotated[
        Secret | None,
        Meta(
            description="Where the URL is found to which each alert is posted as JSON: `name`, `stage`, "
            "`session`, `message`, `labels`. Tried again after 1, 4 and 16 seconds. Unset: nowhere.",
            examples=[{"credential": "alert-webhook", "env": "RTPIPE_ALERT_WEBHOOK"}],
        ),
    ] = None
    period_s: Annotated[
        float, Meta(ge=1, le=86_400 * 31, description="An equal alert is sent once in so many seconds.")
    ] = 3600.0


class Audit(_Struct, frozen=True, kw_only=True):
    """Who connected, what was refused, what an operator changed: one JSON object a line."""

    file: Annotated[
        str | None,
        Meta(
            description="Absolute path of a file to append to (made with permissions 0600). Unset: none.",
            examples=["/var/log/rtpipe/audit.jsonl"],
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.file is not None and not self.file.startswith("/"):
            raise ValueError("expected an absolute path, such as /var/log/rtpipe/audit.jsonl")


class Redaction(_Struct, frozen=True, kw_only=True):
    """What is taken out of words and arguments before anybody is shown them: taps, recordings, facts, and
    plugins that send them elsewhere."""

    cards: Annotated[
        bool, Meta(description="Numbers of 13 to 19 digits whose check digit is that of a payment card.")
    ] = True
    emails: Annotated[bool, Meta(description="E-mail addresses.")] = True
    phones: Annotated[bool, Meta(description="Telephone numbers, as they are commonly written.")] = True
    patterns: Annotated[
        dict[str, str],
        Meta(
            description="Regular expressions of Python's by the word that stands for what they find.",
            examples=[{"account": "ACC-[0-9]{8}"}],
        ),
    ] = {}
    tools: Annotated[
        dict[str, tuple[str, ...]],
        Meta(
            description="By a tool's name: the fields of its arguments to take out, dotted; `*` for all of "
            "them.",
            examples=[{"book_table": ["guest.name"]}],
        ),
    ] = {}

    def __post_init__(self) -> None:
        for word, pattern in self.patterns.items():
            try:
                compiled = re.compile(pattern)
            except re.error as exc:
                raise ValueError(f"the pattern {word} is no regular expression: {exc}") from None
            if compiled.match(""):
                raise ValueError(f"the pattern {word} finds what is empty: it would find it everywhere")


class Signs(_Struct, frozen=True, kw_only=True):
    """When what many calls have in common becomes an alert. Each sign alerts once in a window."""

    window_s: Annotated[
        float, Meta(ge=10, le=86_400, description="What is looked at together: this much time.")
    ] = 600.0
    repeated_calls: Annotated[
        int, Meta(ge=2, le=10_000, description="Equal calls of a tool in one session within the window.")
    ] = 20
    cost_factor: Annotated[
        float,
        Meta(
            gt=1,
            le=1000,
            description="How many times the window before this one costs, with no more sessions than it had.",
        ),
    ] = 3.0
    cost_usd: Annotated[
        float, Meta(ge=0, le=1e6, description="Less than this in a window is never a spike.")
    ] = 1.0
    reconnect_rate: Annotated[
        float,
        Meta(gt=0, le=1000, description="Reconnects of either leg for each session there was in the window."),
    ] = 0.5
    left_after_tool_s: Annotated[
        float,
        Meta(gt=0, le=3600, description="A caller who is gone so soon after a tool call left because of it."),
    ] = 10.0
    left_after_tool_rate: Annotated[
        float, Meta(gt=0, le=1, description="The share of such callers among those whose session ended.")
    ] = 0.3
    tool_error_rate: Annotated[
        float, Meta(gt=0, le=1, description="The share of tool calls that failed.")
    ] = 0.1
    min_sample: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Of how many sessions or calls a share must at least be."),
    ] = 20
