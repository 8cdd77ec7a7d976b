"""What an operator makes of sessions: settings that are a default, set, or locked."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from rtpipe import Draft, Json
from rtpipe.protocol import session_config as sc

POLICY_LABEL: Final = "policy"
"""The label of a principal that names its policy."""
_MISSING: Final = object()
_CONTAINERS: Final = ("audio.input", "audio.output", "audio")
_SPEAKERS: Final = ("user", "assistant")
"""Whose messages are no instructions."""
_TOOL_LISTS: Final = "mcp_list_tools"
WITHHELD: Final = "The model's server refused this, in words that are for the operator of this gateway."


class Place(NamedTuple):
    """Where a setting stands: its path, and what the beta called it, which some servers still understand."""

    path: str
    beta: str | None
    in_transcription: bool = False


PLACES: Final = {
    "instructions": Place("instructions", None),
    "voice": Place("audio.output.voice", "voice"),
    "tools": Place("tools", None),
    "modalities": Place("output_modalities", "modalities"),
    "transcription": Place("audio.input.transcription", "input_audio_transcription", True),
    "noise_reduction": Place("audio.input.noise_reduction", "input_audio_noise_reduction", True),
    "max_output_tokens": Place("max_output_tokens", "max_response_output_tokens"),
}
HIDDEN: Final = ("instructions", "tools")
"""What the client is not to see of a policy. (The rest it hears.)"""


class Transcription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How what the caller says is transcribed."""

    model: Annotated[str, Meta(description="The model that transcribes.")]
    language: Annotated[str | None, Meta(description="The language, such as `de`.")] = None
    keywords: Annotated[tuple[str, ...], Meta(description="Words to expect.")] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some settings of a session."""

    instructions: Annotated[str | None, Meta(description="What the model is told to be.")] = None
    voice: Annotated[str | None, Meta(description="The voice of the answers.")] = None
    tools: Annotated[
        tuple[dict[str, Any], ...] | None, Meta(description="Tools, as the Realtime protocol has them.")
    ] = None
    modalities: Annotated[
        tuple[Literal["text", "audio"]] | None, Meta(description="What answers are made of.")
    ] = None
    transcription: Annotated[
        Transcription | Literal["off"] | None, Meta(description="How the caller is transcribed, or `off`.")
    ] = None
    noise_reduction: Annotated[
        Literal["near_field", "far_field", "off"] | None, Meta(description="For which kind of microphone.")
    ] = None
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | Literal["inf"] | None, Meta(description="Tokens an answer may have.")
    ] = None

    def written(self) -> dict[str, Any]:
        """The settings there are, as the protocol has their values."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: _value(name, value) for name, value in found.items() if value is not None}


def _value(name: str, value: Any) -> Any:
    if value == "off":
        return None
    if name == "noise_reduction":
        return {"type": value}
    if name == "voice" and value.startswith("voice_"):  # the id of a custom one
        return {"id": value}
    if isinstance(value, Transcription):
        fields = {"model": value.model, "language": value.language, "keywords": list(value.keywords) or None}
        return {key: each for key, each in fields.items() if each is not None}
    return list(value) if isinstance(value, tuple) else value


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sessions of a caller are like."""

    default: Annotated[Settings, Meta(description="Until the client asks for something else.")] = Settings()
    set: Annotated[
        Settings,
        Meta(description="Whatever the client asks; a single answer may still be asked for otherwise."),
    ] = Settings()
    lock: Annotated[
        Settings, Meta(description="Whatever the client asks, and nothing it sends changes that.")
    ] = Settings()
    on_locked: Annotated[
        Literal["strip", "reject"],
        Meta(
            description="A client's event that would change what is locked goes on without that (`strip`) or "
            "is answered with an error (`reject`)."
        ),
    ] = "strip"

    def __post_init__(self) -> None:
        tables = {"default": self.default, "set": self.set, "lock": self.lock}
        where: dict[str, str] = {}
        for table, settings in tables.items():
            for name in settings.written():
                if name in where:
                    raise ValueError(
                        f"{name} stands in {where[name]} and in {table}: write it in one of them"
                    )
                where[name] = table


class Applied:
    """A policy, ready for the sessions it is for."""

    def __init__(self, policy: Policy) -> None:
        self.rejects = policy.on_locked == "reject"
        self.default, self.set = policy.default.written(), policy.set.written()
        self.locked = policy.lock.written()
        self._fixed = {**self.set, **self.locked}
        said = {**self.default, **self._fixed}
        self.hidden = tuple(name for name in HIDDEN if name in said)
        words = "|".join(re.escape(word) for word in _words(said))
        self._quoted = re.compile(rf"(?<!\w)(?:{words})(?!\w)") if words else None

    def configure(self, draft: Draft, *, transcription: bool) -> None:
        """Make the draft what the policy says."""
        for name, value in self.default.items():
            place = PLACES[name]
            applies = place.in_transcription or not transcription
            if applies and draft.get(place.path, ...) is ...:  # a copy of which is itself
                draft.set(place.path, value)
        for name, value in self._fixed.items():
            place = PLACES[name]
            if place.beta is not None:
                draft.remove(place.beta)
            if place.in_transcription or not transcription:
                draft.set(place.path, value)
                draft.require(place.path)
        if self.locked:
            draft.remove("prompt")

    def of_update(self, update: Json, *, transcription: bool) -> tuple[list[str], Json]:
        """What in a client's `session.update` is locked, and the update without that and what is set.

        A session does not become one of the other type: that has other settings than those locked here.
        """
        found, rest = self._without_locked(update)
        own = "transcription" if transcription else "realtime"
        if self.locked and rest.get("type", own) != own:
            found.append("type")
            rest = {**rest, "type": own}
        for path in _paths(self.set):
            rest = sc.without(rest, path)
        for path in _CONTAINERS if self._fixed else ():
            if not isinstance(
                sc.get(rest, path, {}), dict
            ):  # to some servers that may mean all that is in it
                found.append(path)
                rest = sc.without(rest, path)
        return found, _without_empty(rest)

    def of_create(self, response: Json) -> tuple[list[str], Json]:
        """What in a client's `response.create` would override what is locked, and the rest."""
        found, rest = self._without_locked(response)
        entries = rest.get("input")
        if isinstance(entries, list):
            kept = [each for each in entries if not self.is_locked_item(each)]
            if len(kept) != len(entries):
                found.append("input")
                rest = {**rest, "input": kept}
        elif self.locked and entries is not None:  # some server may take it for one message
            found.append("input")
            rest = sc.without(rest, "input")
        return found, _without_empty(rest)

    def is_locked_item(self, item: Any) -> bool:
        """Whether an item of the client's would be instructions or tools under another name."""
        if not isinstance(item, dict):
            return False
        if "instructions" in self.locked and (item.get("type") == "message" or "role" in item):
            return item.get("role") not in _SPEAKERS
        return "tools" in self.locked and item.get("type") == _TOOL_LISTS

    def hides_item(self, item: Json | None) -> bool:
        """Whether an item would show the client tools that it is not to see."""
        return "tools" in self.hidden and item is not None and item.get("type") == _TOOL_LISTS

    def as_seen(self, response: Json) -> Json:
        """A response as the client may see it: the same object where there is nothing to hide."""
        details = response.get("status_details")
        if isinstance(details, dict) and (seen := self.error_as_seen(details)) is not details:
            response = {**response, "status_details": seen}
        hidden = {name for name in self.hidden if response.get(name) is not None}
        return {key: value for key, value in response.items() if key not in hidden} if hidden else response

    def error_as_seen(self, holder: Json) -> Json:
        """What has an `error`, as the client may see it: its message may quote what is hidden."""
        error = holder.get("error")
        if self._quoted is None or not isinstance(error, dict) or not self._quoted.search(str(error)):
            return holder
        told = {key: error[key] for key in ("type", "code", "event_id") if key in error}
        return {**holder, "error": {**told, "message": WITHHELD, "param": None}}

    def _without_locked(self, settings: Json) -> tuple[list[str], Json]:
        found = []
        for path in (*_paths(self.locked), *(("prompt",) if self.locked else ())):
            if sc.get(settings, path, _MISSING) is not _MISSING:
                found.append(path)
                settings = sc.without(settings, path)
        return found, settings


def _words(settings: Json) -> Iterator[str]:
    """By which a text is known that quotes instructions (a line of them is enough) or tools."""
    for line in str(settings.get("instructions", "")).splitlines():
        if line.strip():
            yield line.strip()
    for tool in settings.get("tools", ()):
        yield from (str(tool[key]) for key in ("name", "description", "server_url") if tool.get(key))


def _without_empty(settings: Json) -> Json:
    for path in _CONTAINERS:
        if sc.get(settings, path) == {}:
            settings = sc.without(settings, path)
    return settings


def _paths(settings: Json) -> Iterator[str]:
    for name in settings:
        yield PLACES[name].path
        if (beta := PLACES[name].beta) is not None:
            yield beta
