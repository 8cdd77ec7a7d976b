"""What a call came to: the conversation that the model has at the end, by its own log, and what the gateway
says was lost."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from typing import Any

from rtpipe.protocol.items import CUT_OFF, NOT_HEARD
from tests.survival.cutting import MODEL, Cut

Said = tuple[str, str]
"""Who, and what."""
_LONG = "You said: All work"
_CUT_OFF = ("assistant", "an answer that was interrupted")
_RESULT, _OF_RESULT = ("output", "4"), ("assistant", "The tool answered: 4")
_SECONDS = re.compile(r"\d+\.\d+ seconds")


@dataclass
class Conversation:
    """One session at the model, as its log tells it."""

    items: dict[str, Said] = field(default_factory=dict)
    finished: Counter[str] = field(default_factory=Counter)
    """Completed answers, by the turn that their metadata name."""

    def observe(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "conversation.item.added":
                self._add(event["item"], event.get("previous_item_id"))
            case "conversation.item.done":
                self.items[event["item"]["id"]] = _said(event["item"])
            case "conversation.item.input_audio_transcription.completed":
                self.items[event["item_id"]] = ("user", event["transcript"])
            case "conversation.item.truncated":
                self.items[event["item_id"]] = _CUT_OFF
            case "conversation.item.deleted":
                self.items.pop(event["item_id"], None)
            case "response.done" if event["response"]["status"] == "completed":
                self.finished[(event["response"]["metadata"] or {}).get("turn", "")] += 1

    def _add(self, item: dict[str, Any], previous: str | None) -> None:
        ids = list(self.items)
        ids.insert(ids.index(previous) + 1 if previous in ids else len(ids), item["id"])
        self.items = {each: self.items.get(each, _said(item)) for each in ids}

    @property
    def of_model(self) -> list[Said]:
        """What the model said, but for calls of tools."""
        return [said for said in self.items.values() if said[0] == "assistant"]

    @property
    def of_others(self) -> list[Said]:
        return [said for said in self.items.values() if said[0] != "assistant"]


def _said(item: dict[str, Any]) -> Said:
    if item["type"] == "function_call":
        return "call", f"{item['name']} {item['arguments']}"
    if item["type"] == "function_call_output":
        return "output", item["output"]
    parts = [each.get("text") or each.get("transcript") or "" for each in item["content"]]
    parts += ["a picture" for each in item["content"] if each["type"] == "input_image"]
    words = " ".join(part for part in parts if part)
    interrupted = words.startswith(_LONG) or _LONG.startswith(words.removesuffix(CUT_OFF))
    return _CUT_OFF if item["role"] == "assistant" and interrupted else (item["role"], words)


@dataclass
class Told:
    """What the model and the gateway told of one call."""

    sessions: list[Conversation]
    lost: list[str]
    """What was not carried over, each time a leg was replaced or taken up again."""

    @property
    def final(self) -> Conversation:
        return self.sessions[-1]


def told(model_log: Iterable[str], gateway_log: Iterable[str]) -> dict[str, Told]:
    """Of every call, by its name."""
    calls: dict[str, Told] = {}
    sessions: dict[int, Conversation] = {}
    for line in model_log:
        entry = json.loads(line)
        event = entry.get("event")
        if event is None:
            continue
        if event["type"] == "session.created":
            sessions[entry["session"]] = Conversation()
            name = event["session"]["model"].removeprefix(MODEL)
            calls.setdefault(name, Told([], [])).sessions.append(sessions[entry["session"]])
        if entry["from"] == "server":
            sessions[entry["session"]].observe(event)
    names: dict[str, str] = {}
    for line in gateway_log:
        entry = json.loads(line)
        fields = entry.get("fields", {})
        if entry.get("fact") == "SessionOpened":
            names[fields["session"]] = fields["model"].removeprefix(MODEL)
        elif entry.get("fact") == "LegChanged" and fields["change"] in ("replaced", "resumed"):
            name = names.get(fields["session"])
            if name in calls and fields["cause"]:
                calls[name].lost.append(fields["cause"])
    return calls


def difference(call: Cut, disturbed: Told, undisturbed: Told) -> str | None:
    """What is not as in the call that nobody cut, and was not named as lost; None if nothing."""
    lost = " ".join(disturbed.lost)
    one, other = undisturbed.final, disturbed.final
    # Whoever does not count may have missed that it was heard, or what it was to run.
    repeats = call.leg == "client" and not call.counts
    if not repeats and (twice := [turn for turn, n in other.finished.items() if n > one.finished[turn]]):
        return f"answered twice: {twice}"
    # What the caller says while there is no way to the gateway is not for the gateway to name.
    inexact = call.leg == "client" or "audio" in lost
    others, of_model = other.of_others, other.of_model
    if repeats and _RESULT not in others:
        one = Conversation({i: said for i, said in one.items.items() if said not in (_RESULT, _OF_RESULT)})
    if repeats:
        others, of_model = ([said for said, _ in groupby(each, _inexact)] for each in (others, of_model))
    return _compare(one.of_others, others, inexact, lost) or _compare(
        one.of_model, of_model, inexact, lost, free="cut off" in lost or "without words" in lost
    )


def _compare(
    ours: list[Said], theirs: list[Said], inexact: bool, lost: str, *, free: bool = False
) -> str | None:
    """*free*: an answer that is asked for again is made from words, perhaps of more than one turn."""
    for expected, found in zip_longest(ours, theirs):
        if expected is None or found is None:
            return _instead(found, expected)
        if free or expected == found or (inexact and _inexact(expected) == _inexact(found)):
            continue
        if "without words" in lost and found == ("user", NOT_HEARD):
            continue
        return _instead(found, expected)
    return None


def _instead(found: Said | None, expected: Said | None) -> str:
    return f"{str(found)[:80]} instead of {str(expected)[:80]}"


def _inexact(said: Said) -> Said:
    return said[0], _SECONDS.sub("some seconds", said[1])
