"""Redaction: what is taken out of words and arguments before anybody is shown them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rtpipe.api.event import Json
from rtpipe.api.facts import Fact
from rtpipe.daemon.config_observe import Redaction
from rtpipe.protocol import content
from rtpipe.protocol.reading import Unreadable, decode

# A run of digits in groups. What touches a letter or an underscore is part of an id.
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w)")
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
# International; or with an area code in brackets or groups, or a leading zero. Not a date as ISO writes it.
_PHONE = re.compile(
    r"(?<![\w.+-])(?!\d{4}-\d\d-\d\d\b)"
    r"(?:\+\d(?:[ ()/.-]{0,2}\d){6,14}|\(\d{2,5}\)[ -]?\d(?:[ -]?\d){4,9}"
    r"|\d{3}[ -]\d{3}[ -]\d{4}|0\d(?:[ /-]?\d){5,12})(?!\w)"
)
_FREE_TEXT = ("reason", "message", "cause", "what", "type")
_ALL = "*"


class Redactor:
    """The rules of one configuration, ready to be used. What they find becomes ``[word]``."""

    def __init__(self, rules: Redaction) -> None:
        self._tools = rules.tools
        self._steps: list[Callable[[str], str]] = []
        for word, pattern in rules.patterns.items():
            self._steps.append(_replacing(re.compile(pattern), f"[{word}]"))
        if rules.cards:
            self._steps.append(lambda text: _DIGITS.sub(_without_card, text))
        if rules.emails:
            self._steps.append(_replacing(_EMAIL, "[email]"))
        if rules.phones:
            self._steps.append(_replacing(_PHONE, "[phone]"))

    def text(self, text: str) -> str:
        """*text* without what the rules find in it."""
        for step in self._steps:
            text = step(text)
        return text

    def arguments(self, tool: str, text: str) -> str:
        """The JSON arguments of a call of *tool*, without the fields that rules name and what they find."""
        if paths := self._tools.get(tool):
            try:
                value: Any = decode(text.encode())
            except Unreadable:
                return "[arguments]"
            for path in paths:
                value = _without_field(value, path.split("."))
            text = msgspec.json.encode(value).decode()
        return self.text(text)

    def fact(self, fact: Fact) -> Fact:
        """*fact* with its free text redacted, and a call's arguments."""
        changed = {}
        for field in _FREE_TEXT:
            before = getattr(fact, field, "")
            if before and (after := self.text(before)) != before:
                changed[field] = after
        if arguments := getattr(fact, "arguments", ""):
            changed["arguments"] = self.arguments(getattr(fact, "name", ""), arguments)
        return msgspec.structs.replace(fact, **changed) if changed else fact

    def event(self, kind: str, payload: bytes) -> bytes:
        """An event of type *kind* as somebody may be shown it: pieces of text left out, sound as it is.

        A piece of a text can hide from every rule what the whole does not, and the whole comes after it.
        """
        if content.is_sound(kind):
            return payload
        try:
            data = decode(payload)
        except Unreadable:
            return msgspec.json.encode(self.text(payload.decode(errors="replace")))
        return msgspec.json.encode(self.json(data))

    def json(self, data: Json) -> Json:
        """An object of the protocol, likewise."""
        return content.with_texts(data, self.text, self.arguments)


def _replacing(pattern: re.Pattern[str], word: str) -> Callable[[str], str]:
    return lambda text: pattern.sub(lambda _: word, text)


def _without_card(match: re.Match[str]) -> str:
    digits = [int(each) for each in match[0] if each.isdigit()]
    doubled = [d * 2 - 9 if d > 4 else d * 2 for d in digits[-2::-2]]
    is_card = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return "[card]" if is_card else match[0]


def _without_field(value: Any, path: list[str]) -> Any:
    """JSON without the field at *path*; lists on the way stand for each of their elements."""
    if isinstance(value, list):
        return [_without_field(each, path) for each in value]
    if not isinstance(value, Mapping):
        return value
    if path == [_ALL]:
        return dict.fromkeys(value, "[field]")
    key, *rest = path
    if key not in value:
        return value
    return {**value, key: _without_field(value[key], rest) if rest else "[field]"}
