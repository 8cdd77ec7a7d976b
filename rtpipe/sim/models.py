"""What differs between the models: OpenAI's model pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import ClientError


class Model(NamedTuple):
    """`context`, `most_output`: tokens of all that is read and written, and of the longest response.
    `reasons`: thinks before it writes, if asked to."""

    context: int
    most_output: int
    reasons: bool

    @property
    def most_input(self) -> int:
        return self.context - self.most_output


_FIRST = Model(context=32_768, most_output=4_096, reasons=False)
_SECOND = Model(context=128_000, most_output=32_000, reasons=True)
_BY_PREFIX = {
    "gpt-realtime-2": _SECOND,
    "gpt-4o": Model(context=128_000, most_output=4_096, reasons=False),
    "gpt-realtime": _FIRST,
}


def model_named(name: str) -> Model:
    """A name nobody knows, an Azure deployment perhaps, is taken for the newest model."""
    return next((model for prefix, model in _BY_PREFIX.items() if name.startswith(prefix)), _SECOND)


def check_generation(model: Model, asked: Mapping[str, Any], where: str) -> None:
    """Refuse what this model cannot do; `where`: "session" or "response", for errors."""
    if asked.get("reasoning") and not model.reasons:
        raise ClientError("invalid_value", "This model does not support reasoning.", f"{where}.reasoning")
    most = asked.get("max_output_tokens")
    if isinstance(most, int) and most > model.most_output:
        raise ClientError(
            "invalid_value",
            f"Invalid value: {most}. Expected 1 to {model.most_output}, or 'inf'.",
            f"{where}.max_output_tokens",
        )
    truncation = asked.get("truncation")
    limits = truncation.get("token_limits") if isinstance(truncation, dict) else None
    if ((limits or {}).get("post_instructions") or 0) > model.most_input:
        raise ClientError(
            "invalid_value",
            f"Invalid value: this model reads at most {model.most_input} tokens.",
            f"{where}.truncation.token_limits.post_instructions",
        )
