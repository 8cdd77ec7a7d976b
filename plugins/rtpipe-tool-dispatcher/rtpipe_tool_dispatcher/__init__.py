"""Runs the model's function calls, off the audio path, and gives it their results."""

from rtpipe_tool_dispatcher.config import Config, ToolOptions
from rtpipe_tool_dispatcher.plugin import ToolDispatcher
from rtpipe_tool_dispatcher.state import State

__all__ = ["Config", "State", "ToolDispatcher", "ToolOptions"]
