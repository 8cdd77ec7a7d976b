"""Scenario scripts: a TOML file that says what the model does, response by response."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .faults import session_fault

Seconds = Annotated[float, Meta(ge=0, le=3600)]


class ScenarioError(ValueError):
    """A script that cannot be followed; the text names the file, the key and the reason in one line."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output item: `say` makes a message, `call` a function call with `arguments` (a table, or as text
    exactly what the model sends). `after_s` passes before it begins, at pace 1."""

    say: str | None = None
    call: str | None = None
    arguments: dict[str, Any] | str = {}
    after_s: Seconds = 0

    def __post_init__(self) -> None:
        if (self.say is None) == (self.call is None):
            raise ValueError("needs say or call, and not both")
        if self.arguments and self.call is None:
            raise ValueError("arguments belong to a call")


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model does in a response: in the `number`-th of a session, or whenever the user's last words
    contain `text`. `end`: how it ends instead of completed. `fault`: ordered when it begins."""

    number: Annotated[int, Meta(ge=1)] | None = None
    text: Annotated[str, Meta(min_length=1)] | None = None
    steps: tuple[Step, ...] = ()
    end: str | None = None
    fault: str | None = None

    def __post_init__(self) -> None:
        if (self.number is None) == (self.text is None):
            raise ValueError("needs number or text, and not both")
        if not (self.steps or self.end or self.fault):
            raise ValueError("says nothing to do: needs steps, end or fault")
        if self.fault is not None:
            session_fault(self.fault)


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reply`: the first that fits is followed; a response that none fits is as without a script. `faults`:
    ordered when a session opens."""

    reply: tuple[Reply, ...] = ()
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for words in self.faults:
            session_fault(words)

    def reply_to(self, number: int, texts: Sequence[str]) -> Reply | None:
        """The script of the session's `number`-th response, when the user's last words are the last of
        `texts`."""
        last = texts[-1] if texts else ""
        return next(
            (
                each
                for each in self.reply
                if each.number == number or (each.text is not None and each.text in last)
            ),
            None,
        )


def read_scenario(path: Path) -> Scenario:
    """Read a script. Raises ScenarioError."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Scenario)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        where = re.sub(r"^\.", "", place.rstrip("`"))
        raise ScenarioError(f"{path}: {where + ': ' if where else ''}{reason}") from None
