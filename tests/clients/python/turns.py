"""What the drivers of Python clients share. It runs in their environments: standard library alone."""

import asyncio
import json
import sys
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from textwrap import indent
from typing import Any

WAIT_S = 90
GREETING = "Good day — ünïcode 🎉"
LONG = "All work and no play makes it a long story. " * 30
"""Said back, this takes long enough to be interrupted."""

_input = json.load(sys.stdin)
SNIPPET: str = _input["snippet"]
MATERIAL: dict[str, str] = _input["material"]
DISPATCHED: bool = MATERIAL.get("dispatched") == "yes"
"""Whether the gateway runs a tool of which the client knows nothing; then that is the only turn."""
AUDIO = b64decode(MATERIAL["audio"])
"""Half a second of a tone: PCM16, 24 kHz."""
SPEECH = b64decode(MATERIAL["speech"])
"""The same between two silences."""


def chunks(pcm: bytes, ms: int = 100) -> list[bytes]:
    """Pieces of so many milliseconds."""
    size = 48 * ms
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


def program() -> Callable[..., Awaitable[None]]:
    """The snippet as a coroutine function, with a call of its argument ``turn`` in the place of its dots."""
    lines = SNIPPET.splitlines()
    dots = next(index for index, line in enumerate(lines) if line.strip() == "...")
    names: dict[str, Any] = {}
    given = lines[dots - 1].rpartition(" as ")[2].rstrip(":")
    lines[dots] = lines[dots].replace("...", f"await turn({given})")
    body = indent("\n".join(lines), "    ")
    exec(f"async def program(turn, **given):\n    globals().update(given)\n{body}", names)  # noqa: S102
    return names["program"]


async def attempt(name: str, turn: Awaitable[None]) -> None:
    """Run a turn and say what became of it, in a line as tests/clients/rows.py reads them."""
    try:
        async with asyncio.timeout(WAIT_S):
            await turn
    except Exception as exc:
        say(f"failed {name}: {' '.join(repr(exc).split())[:600]}")
    else:
        say(f"ok {name}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def unseen(events: Sequence[Any]) -> None:
    """The client has seen a "hold on", and neither a call nor an error."""
    seen = [event for event in events if event["type"] == "error" or "call_" in str(event)]
    same(seen, [])
    created = [event["response"] for event in events if event["type"] == "response.created"]
    same(["rtpipe_filler" in (each["metadata"] or {}) for each in created[:3]], [False, True, False])


def same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")
