"""Paying less: answers of a bounded length, and old audio and images that are not read again and again."""

import math
from typing import TYPE_CHECKING, Any

from rtpipe import Draft, Event, Json, Session
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client, Server
from rtpipe.protocol.session_config import audio_bytes_per_second
from rtpipe.protocol.usage import Usage
from rtpipe_cost_governor.state import State

if TYPE_CHECKING:
    from rtpipe_cost_governor.plugin import CostGovernor

NOTHING = Usage()
_IGNORES_TRUNCATION = frozenset({"azure"})
"""Kinds of upstreams that take the setting, repeat it, and do nothing."""
_KEPT_ITEMS = 4
"""The last ones are never pruned: they are what is being talked about."""


_ENOUGH_TO_JUDGE = 1000
_ANSWERS_TO_JUDGE = 3


def most_context(governor: "CostGovernor", state: State) -> int:
    """How much of the conversation is worth reading. To cut it is to read what is left without the cache, so
    as long as the cache helps, a long conversation is cheaper than a cut one."""
    config = governor.config
    return (
        min(config.context_tokens, config.uncached_context_tokens)
        if state.uncached
        else config.context_tokens
    )


def judge_cache(session: Session[State], usage: Usage) -> None:
    """See whether the cache helps; a few answers in a row decide, a cut alone does not."""
    state = session.state
    read = usage.input_text + usage.input_audio + usage.input_image
    if read < _ENOUGH_TO_JUDGE:
        return
    uncached = (usage.cached_text + usage.cached_audio + usage.cached_image) * 2 < read
    state.against = state.against + 1 if uncached != state.uncached else 0
    if state.against >= _ANSWERS_TO_JUDGE:
        state.uncached, state.against = uncached, 0
        session.reconfigure()


def configure(governor: "CostGovernor", session: Session[State], draft: Draft) -> None:
    if draft.get("type") == "transcription":
        return
    most = session.state.caps.max_output_tokens
    asked = draft.get("max_output_tokens")
    if not isinstance(asked, int) or asked > most:
        draft.set("max_output_tokens", most)
    if draft.get("truncation") is None and session.state.upstream_kind not in _IGNORES_TRUNCATION:
        draft.set(
            "truncation",
            {
                "type": "retention_ratio",
                "retention_ratio": governor.config.retention_ratio,
                "token_limits": {"post_instructions": most_context(governor, session.state)},
            },
        )


def asked_for(create: Json, clamp: int) -> int:
    """The most tokens a ``response.create`` asks for, within the clamp."""
    asked = (events.response_of(create) or {}).get("max_output_tokens")
    return min(asked, clamp) if isinstance(asked, int) and asked > 0 else clamp


def clamped(create: Json, most: int) -> Json:
    """A ``response.create`` that asks for no more."""
    response = events.response_of(create) or {}
    return {**create, "response": {**response, "max_output_tokens": most}}


def audio_bytes_per_second_out(session: Session[State]) -> int:
    """Of the model's audio, decoded."""
    return audio_bytes_per_second(session.effective)


def weigh(item: Json) -> tuple[int, int]:
    """How many images an item has, and how many characters."""
    content = item.get("content")
    parts: list[Any] = content if isinstance(content, list) else []
    images = sum(isinstance(part, dict) and part.get("type") == "input_image" for part in parts)
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    texts += [item.get("output"), item.get("arguments")]
    return images, sum(len(text) for text in texts if isinstance(text, str))


def follow(session: Session[State], event: Event) -> None:
    """Keep the list of items that can be pruned: messages with audio or images in them."""
    item_id = events.item_id_of(event.data) or ""
    if event.type == Server.ITEM_DELETED:
        session.state.prunable.pop(item_id, None)
        return
    item = events.item_of(event.data) or {}
    content = item.get("content")
    kinds = (
        {part.get("type") for part in content if isinstance(part, dict)}
        if isinstance(content, list)
        else set()
    )
    speaks = item.get("role") == "assistant" and item.get("type") == "message"
    if speaks or kinds & {"input_audio", "input_image", "output_audio"}:
        session.state.prunable[item_id] = True


def prune(governor: "CostGovernor", session: Session[State], usage: Usage) -> None:
    """Where the upstream does not shorten the conversation by itself, delete its oldest audio and images,
    now that nothing is being said."""
    state, config = session.state, governor.config
    if state.upstream_kind not in _IGNORES_TRUNCATION or not state.is_quiet or state.landing:
        return
    heavy = usage.input_audio + usage.input_image + usage.output_audio
    total = heavy + usage.input_text + usage.output_text
    most = most_context(governor, state)
    if total <= most or not heavy:
        return
    # How much each item weighs is not known: they are taken for equal, and what is left is seen next time.
    surplus = total - most * config.retention_ratio
    old = list(state.prunable)[:-_KEPT_ITEMS]
    for item_id in old[: math.ceil(len(state.prunable) * min(1.0, surplus / heavy))]:
        del state.prunable[item_id]
        session.send_upstream(Event({"type": Client.ITEM_DELETE, "item_id": item_id}))
