"""Checks what the caller says or types before the model answers."""

from rtpipe_input_guardrail.config import Config
from rtpipe_input_guardrail.plugin import InputGuardrail

__all__ = ["Config", "InputGuardrail"]
