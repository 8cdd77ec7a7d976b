"""What the operator writes."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rtpipe import Late, Tool

Seconds = Annotated[float, Meta(ge=0.1, le=600)]


class ToolOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.tool-dispatcher.tools.NAME]``: what is left out, the tool says itself."""

    timeout_s: Annotated[
        Seconds | None, Meta(description="How long the caller waits for an answer of this tool.")
    ] = None
    cancellable: Annotated[
        bool | None,
        Meta(
            description="Whether a call may be cancelled when the caller speaks, leaves or waited too long."
        ),
    ] = None
    confirm: Annotated[
        bool | None, Meta(description="Have the caller confirm the arguments before a call runs.")
    ] = None
    late: Annotated[
        Late | None,
        Meta(description="What becomes of an answer after timeout_s: it is dropped, or offered once."),
    ] = None
    cache_ttl_s: Annotated[
        Annotated[float, Meta(ge=0, le=86400)] | None,
        Meta(description="How long a result is good for equal arguments, in one session."),
    ] = None
    mask: Annotated[
        tuple[str, ...] | None,
        Meta(description="Fields of the arguments that appear in no log line and no fact: card.number."),
    ] = None

    def over(self, tool: Tool) -> Tool:
        """The tool with what these options say otherwise."""
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(tool, **given)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of ``[plugins.tool-dispatcher]``."""

    filler: Annotated[
        Literal["model", "none"],
        Meta(description="Whether the model says a few words while a tool takes long."),
    ] = "model"
    filler_after_s: Annotated[
        Seconds, Meta(description="How long a tool may be silent before the model fills the silence.")
    ] = 2.0
    filler_instructions: Annotated[
        str, Meta(min_length=1, max_length=1000, description="What the model is told to say then.")
    ] = (
        "Tell the caller in at most six words, in the language of the conversation, that you are looking it "
        "up. Say nothing else, promise nothing and do not ask anything."
    )
    timeout_message: Annotated[
        str,
        Meta(min_length=1, max_length=500, description="What the model is told when a tool did not answer."),
    ] = "That is taking longer than it should, so there is no answer yet."
    failure_message: Annotated[
        str, Meta(min_length=1, max_length=500, description="What the model is told when a tool failed.")
    ] = "That did not work because of a technical problem."
    late_limit_s: Annotated[
        Seconds,
        Meta(description="After how long a call is given up that may not be cancelled or is offered late."),
    ] = 60.0
    repeat_window_s: Annotated[
        float,
        Meta(ge=0, le=600, description="For how long an equal call is answered with the first one's result."),
    ] = 5.0
    max_result_chars: Annotated[
        int,
        Meta(ge=500, le=1_000_000, description="How long a result may be; more comes in pages."),
    ] = 8000
    max_description_chars: Annotated[
        int, Meta(ge=1, le=100_000, description="How long a description may be before it is warned of.")
    ] = 400
    max_rounds: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="How often in a row the model may speak or call on results alone.",
        ),
    ] = 10
    breaker_failures: Annotated[
        int, Meta(ge=1, le=1000, description="After so many failures in a row a tool is no longer called.")
    ] = 5
    breaker_open_s: Annotated[Seconds, Meta(description="After how long it is tried again.")] = 30.0
    record_arguments: Annotated[
        bool, Meta(description="Put the arguments, masked, in the fact of each call.")
    ] = False
    tools: Annotated[
        dict[str, ToolOptions], Meta(description="What is otherwise for single tools, by their names.")
    ] = {}
