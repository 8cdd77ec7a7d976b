"""What a client's settings say, held against lists of what it may use.

Settings are the session object of a `session.update` or the `response` of a `response.create`: what both may
set stands at the same paths. The beta's names count too: some servers still take them from anybody.
"""

from collections.abc import Set
from typing import Any, Final

from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import Json

_VOICES: Final = ("audio.output.voice", "voice")
_MODALITIES: Final = ("output_modalities", "modalities")
_CUSTOM_VOICE: Final = "voice_"
"""How the ids of custom voices begin, which are set as an object."""

Allowed = Set[str] | None


def forbidden(
    settings: Json, *, tools: Allowed = None, voices: Allowed = None, modalities: Allowed = None
) -> tuple[str, str] | None:
    """Code and message for the first setting that is not on its list (None: a list of everything).

    None where all is well. A prompt template may set what is on none of the lists, so with any list there is
    to be none.
    """
    if tools is None and voices is None and modalities is None:
        return None
    if settings.get("prompt") is not None:
        return "prompt_not_allowed", "This key may not use prompt templates: what one sets cannot be checked."
    if tools is not None:
        for tool in _elements(settings.get("tools")):
            if not _tool_is_on(tool, tools):
                return "tool_not_allowed", f"This key may not declare the tool {_name(tool)!a}."
    for path in _VOICES:
        voice = sc.get(settings, path)
        if voices is not None and voice is not None and not _voice_is_on(voice, voices):
            return "voice_not_allowed", "This key may not choose this voice."
    for path in _MODALITIES:
        for modality in _elements(sc.get(settings, path)):
            if modalities is not None and not (isinstance(modality, str) and modality in modalities):
                return "modality_not_allowed", "This key may not ask for answers of this modality."
    return None


def permitted_defaults(config: Json, *, voices: Allowed, modalities: Allowed) -> Json:
    """What a realtime session needs set so that the upstream's own defaults are on the lists, by path: the
    first in the alphabet of what is allowed, where the client has chosen nothing."""
    found: Json = {}
    if voices and sc.get(config, _VOICES[0]) is None:
        first = min(voices)
        found[_VOICES[0]] = {"id": first} if first.startswith(_CUSTOM_VOICE) else first
    if modalities and "audio" not in modalities and not sc.get(config, _MODALITIES[0]):
        found[_MODALITIES[0]] = [min(modalities)]
    return found


def _elements(value: Any) -> list[Any]:
    """What is no list is judged as the only element of one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _name(tool: Any) -> str:
    name = (tool.get("name") or tool.get("server_label")) if isinstance(tool, dict) else tool
    return str(name)[:64]


def _tool_is_on(tool: Any, tools: Set[str]) -> bool:
    """A function by its name. An MCP server only with a list of its tools, each of which is allowed."""
    if not isinstance(tool, dict):
        return False
    if tool.get("type") == "mcp":
        names = tool.get("allowed_tools")
        names = names.get("tool_names") if isinstance(names, dict) else names
        return (
            isinstance(names, list) and bool(names) and all(isinstance(n, str) and n in tools for n in names)
        )
    name = tool.get("name")
    return isinstance(name, str) and name in tools


def _voice_is_on(voice: Any, voices: Set[str]) -> bool:
    name = voice.get("id") if isinstance(voice, dict) else voice
    return isinstance(name, str) and name in voices
