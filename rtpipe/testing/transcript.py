"""Transcripts: a conversation as a text that a person reads, and that a chain must follow.

One step a line::

    # the second create waits for the first answer
    client   -> response.create {"event_id": "a"}
    upstream <- response.create {"event_id": "a"}
    upstream -> response.created {"response": {"id": "r1"}}
    client   -> response.create
    client   <- response.created
    upstream <- nothing
    wait 2
    client   <- closed 1000

``->`` is sent by that end; ``<-`` must be what that end got next. The fields named must be there with these
values, others may be. ``<- nothing``: that end has got nothing more. ``wait`` lets seconds pass. When the
transcript is over, nothing may be left that no line named.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from rtpipe.api.event import Json
from rtpipe.testing.harness import ChainHarness, End

_STEP = re.compile(r"(client|upstream)\s*(->|<-)\s*(\S+)\s*(.*)")


class TranscriptError(AssertionError):
    """The conversation did not go as written; the text names the line."""


@dataclass(frozen=True, slots=True)
class Step:
    line: int
    end: str
    arrow: str
    what: str
    fields: Json


def parse(text: str) -> list[Step]:
    """The steps of a transcript. Raises ``TranscriptError`` for a line that is none."""
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if (wait := re.fullmatch(r"wait\s+([\d.]+)", stripped)) is not None:
            steps.append(Step(number, "", "wait", wait[1], {}))
        elif (step := _STEP.fullmatch(stripped)) is not None:
            steps.append(Step(number, step[1], step[2], step[3], _fields(number, step[3], step[4])))
        else:
            raise TranscriptError(f"line {number}: not a step: {stripped}")
    return steps


async def play(text: str, chain: ChainHarness) -> None:
    """Have *chain* go through a transcript. Raises ``TranscriptError`` at the first line that differs."""
    steps = parse(text)
    await chain.settle()
    for step in steps:
        end = chain.client if step.end == "client" else chain.upstream
        if step.arrow == "wait":
            await trio.sleep(float(step.what))
            await chain.settle()
        elif step.arrow == "->":
            await end.send({"type": step.what, **step.fields})
        else:
            _expect(step, end)
    for name, end in (("client", chain.client), ("upstream", chain.upstream)):
        if end.payloads:
            raise TranscriptError(f"at the end: the {name} also got {_brief(end)}")


def _fields(line: int, what: str, text: str) -> Json:
    if what == "closed":
        return {"code": int(text)} if text else {}
    if not text:
        return {}
    try:
        fields = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise TranscriptError(f"line {line}: the fields are not JSON: {exc}") from None
    if not isinstance(fields, dict):
        raise TranscriptError(f"line {line}: the fields must be a JSON object")
    return fields


def _expect(step: Step, end: End) -> None:
    if step.what == "nothing":
        if end.payloads:
            raise TranscriptError(f"line {step.line}: expected nothing, the {step.end} got {_brief(end)}")
        return
    if step.what == "closed":
        if end.closing is None or end.closing.code != step.fields.get("code", end.closing.code):
            raise TranscriptError(
                f"line {step.line}: the {step.end} leg: expected a close, saw {end.closing}"
            )
        return
    if not end.payloads:
        raise TranscriptError(f"line {step.line}: expected {step.what}, the {step.end} got nothing")
    event = msgspec.json.decode(end.payloads.pop(0))
    if event.get("type") != step.what or not _matches(step.fields, event):
        wanted = f"{step.what} {msgspec.json.encode(step.fields).decode()}"
        got = msgspec.json.encode(event).decode()
        raise TranscriptError(f"line {step.line}: expected {wanted}, the {step.end} got {got}")


def _matches(wanted: Any, seen: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(k in seen and _matches(v, seen[k]) for k, v in wanted.items())
    if isinstance(wanted, list):
        return isinstance(seen, list) and len(seen) == len(wanted) and all(map(_matches, wanted, seen))
    return bool(wanted == seen)


def _brief(end: End) -> str:
    return ", ".join(msgspec.json.decode(payload).get("type", "?") for payload in end.payloads[:5])
