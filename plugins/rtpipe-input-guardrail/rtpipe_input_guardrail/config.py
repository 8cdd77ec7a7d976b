"""What the operator writes."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rtpipe import http_url

Policy = Literal["allow", "refuse"]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.input-guardrail]``."""

    words: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="Words and phrases that are refused, whole and in any case."),
    ] = ()
    pattern: Annotated[
        str, Meta(description="A regular expression of Python's; what it finds is refused. Empty: none.")
    ] = ""
    classifier_url: Annotated[
        str,
        Meta(description="Where to POST the text: https, or http on this machine. Empty: none."),
    ] = ""
    classifier_timeout_s: Annotated[
        float, Meta(gt=0, le=20, description="How long the classifier may take in all.")
    ] = 1.0
    on_classifier_failure: Annotated[
        Policy, Meta(description="What becomes of a text that the classifier did not judge in time.")
    ] = "refuse"
    transcript_timeout_s: Annotated[
        float,
        Meta(gt=0, le=20, description="How long an answer waits for the transcript before it."),
    ] = 5.0
    on_no_transcript: Annotated[
        Policy, Meta(description="What becomes of speech whose transcript failed or did not come in time.")
    ] = "refuse"
    transcription_model: Annotated[
        str,
        Meta(min_length=1, description="What transcribes where the client has not asked for it."),
    ] = "gpt-4o-mini-transcribe"
    refusal: Annotated[
        str, Meta(min_length=1, description="What the model is told to say instead of an answer.")
    ] = "Say in one short sentence, in the language of the conversation, that you cannot help with that."
    keep_item: Annotated[
        bool, Meta(description="Leave what was refused in the conversation, where later answers see it.")
    ] = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as exc:
            raise ValueError(f"pattern: not a regular expression: {exc}") from None
        if self.classifier_url:
            try:
                http_url(self.classifier_url)
            except ValueError as exc:
                raise ValueError(f"classifier_{exc}") from None
