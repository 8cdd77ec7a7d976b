"""What an event says was used, in one shape for responses and transcriptions.

Rules (openai-python 3.54.0 types, and what upstreams were seen to send): usage may be `null`, `{}` or lack
its details; cached tokens are part of the input tokens; reasoning tokens are part of the output text tokens,
and what `reasoning_tokens` says again is not added; cancelled, failed and incomplete responses carry usage
and are billed.
"""

import math
from typing import Any

import msgspec

from rtpipe.protocol.catalogue import Json, Server


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens by modality, and seconds of audio where a transcription model is billed by time.

    `cached_x` is the part of `input_x` that came from the cache: `(input_x - cached_x)` is billed in full.
    All numbers are non-negative; `input_* + output_*` is never less than the totals the upstream gave.
    """

    input_text: int = 0
    input_audio: int = 0
    input_image: int = 0
    cached_text: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    output_text: int = 0
    output_audio: int = 0
    total: int = 0
    seconds: float = 0.0


def read_usage(event: Json) -> Usage | None:
    """The usage of a `response.done` or of a completed input transcription; None where it tells nothing.

    Tokens that no detail explains are counted so that a bill is never understated: as audio, the dearest,
    where there are no details at all (a text-only response's output is text, of course), else as text.
    """
    type_ = event.get("type")
    if type_ == Server.RESPONSE_DONE:
        response = _object(event.get("response"))
        usage = _object(response.get("usage"))
        speaks = response.get("output_modalities") != ["text"]
    elif type_ == Server.TRANSCRIPTION_COMPLETED:
        usage = _object(event.get("usage"))
        speaks = False
    else:
        return None
    if not usage:
        return None

    inputs = _object(usage.get("input_token_details"))
    outputs = _object(usage.get("output_token_details"))
    in_text, in_audio, in_image = _modalities(inputs)
    out_text, out_audio, _ = _modalities(outputs)

    rest = max(0, _count(usage.get("input_tokens")) - in_text - in_audio - in_image)
    if in_text + in_audio + in_image:
        in_text += rest
    else:
        in_audio = rest
    rest = max(0, _count(usage.get("output_tokens")) - out_text - out_audio)
    if speaks and not out_text + out_audio:
        out_audio = rest
    else:
        out_text += rest

    cached_details = _object(inputs.get("cached_tokens_details"))
    cached_text, cached_audio, cached_image = _modalities(cached_details)
    if not cached_text + cached_audio + cached_image:
        # Only a sum: what saves least first, so that no discount is assumed that was not given.
        cached = _count(inputs.get("cached_tokens"))
        cached_text = min(cached, in_text)
        cached_image = min(cached - cached_text, in_image)
        cached_audio = cached - cached_text - cached_image

    return Usage(
        input_text=in_text,
        input_audio=in_audio,
        input_image=in_image,
        cached_text=min(cached_text, in_text),
        cached_audio=min(cached_audio, in_audio),
        cached_image=min(cached_image, in_image),
        output_text=out_text,
        output_audio=out_audio,
        total=_count(usage.get("total_tokens")) or in_text + in_audio + in_image + out_text + out_audio,
        seconds=_number(usage.get("seconds")),
    )


def _modalities(details: Json) -> tuple[int, int, int]:
    return (
        _count(details.get("text_tokens")),
        _count(details.get("audio_tokens")),
        _count(details.get("image_tokens")),
    )


def _count(value: Any) -> int:
    return int(_number(value))


def _number(value: Any) -> float:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return max(0, value) if usable else 0


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
