"""``rtpipe replay``: a recorded session played again, and what is different this time."""

import argparse
import difflib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rtpipe.api.errors import ConfigError
from rtpipe.daemon.config_files import one_line
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import UPSTREAM, Server
from rtpipe.protocol.content import is_delta

if TYPE_CHECKING:
    import trio_websocket

NAME = "replay"
HELP = "play a recorded session against a model, and show what is different"
Json = dict[str, Any]
DIFFERENT = 1
_REST_LIMIT_S = 2.0
"""How long to wait for what came after the last answer."""
_CLOSE_LIMIT_S = 1.0


class Recording(NamedTuple):
    """What ``rtpipe record`` wrote: the client's configuration before, and then events either way."""

    model: str
    asked: Json
    events: list[tuple[str, Json]]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="what rtpipe record wrote")
    parser.add_argument("--url", help="of a gateway or a model, ws:// or wss:// (default: a simulated model)")
    parser.add_argument(
        "--key-env", metavar="NAME", help="the environment variable with the key for it (default: no key)"
    )
    parser.add_argument("--model", help="another model than the recorded one")
    parser.add_argument(
        "--timeout-s", type=float, default=30.0, help="how long to wait for an answer (default: %(default)g)"
    )
    parser.epilog = (
        "A real model costs money and never says the same twice. Exits with 1 if something differs."
    )


def run(args: argparse.Namespace) -> int:
    import trio

    recording = read(args.file)
    headers = []
    if args.key_env:
        if not (key := os.environ.get(args.key_env)):
            raise ConfigError(f"the environment variable {args.key_env} is not set")
        headers.append(("authorization", f"Bearer {key}"))
    came = trio.run(_play, recording, args.url, headers, args.model or recording.model, args.timeout_s)
    before = told([event for direction, event in recording.events if direction != UPSTREAM])
    lines = list(difflib.unified_diff(before, told(came), "recorded", "replayed", lineterm="", n=2))
    for line in lines:
        print(line)
    if not lines:
        print(f"no difference: {len(before)} lines")
    return DIFFERENT if lines else 0


def read(path: Path) -> Recording:
    """Raises ``ConfigError``."""
    try:
        head, *rest = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if head["rtpipe_recording"] != 1:
            raise ConfigError(f"{path}: this is a recording of another version of rtpipe")
        told = [(str(each["direction"]), dict(each["event"])) for each in rest]
        return Recording(str(head["model"]), dict(head["asked"]), told)
    except OSError as exc:
        raise ConfigError(one_line(f"{path}: {exc.strerror}")) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(one_line(f"{path}: this is no recording of rtpipe's")) from None


def told(came: Sequence[Json]) -> list[str]:
    """What server events say, one line each, without what is never the same twice: ids, times, deltas."""
    lines = []
    for event in came:
        kind = str(event.get("type"))
        if is_delta(kind) or kind in (Server.SESSION_CREATED, Server.RATE_LIMITS_UPDATED):
            continue
        parts = [kind]
        if kind == Server.RESPONSE_DONE:
            parts += events.outcome_of(event)
        elif kind == Server.ERROR:
            parts.append(events.error_of(event)[0] or "")
        for key in ("transcript", "text", "name", "arguments"):
            if isinstance(text := event.get(key), str):
                parts.append(json.dumps(text))
        lines.append(" ".join(part for part in parts if part))
    return lines


async def _play(
    recording: Recording, url: str | None, headers: list[tuple[str, str]], model: str, timeout_s: float
) -> list[Json]:
    import trio
    import trio_websocket

    came: list[Json] | None = None
    async with trio.open_nursery() as nursery:
        if url is None:
            from rtpipe import sim

            host, port = await nursery.start(sim.serve, sim.SimOptions(pace=0))
            url = f"ws://{host}:{port}/v1/realtime"
        address = url if "model=" in url else f"{url}{'&' if '?' in url else '?'}model={model}"
        with suppress(OSError, ValueError, trio.TooSlowError, trio_websocket.HandshakeError):
            with trio.fail_after(timeout_s):
                socket = await trio_websocket.connect_websocket_url(
                    nursery, address, extra_headers=[(k.encode(), v.encode()) for k, v in headers]
                )
            came = await _converse(socket, recording, timeout_s)
            with trio.move_on_after(_CLOSE_LIMIT_S):
                await socket.aclose()
        nursery.cancel_scope.cancel()
    if came is None:  # raised here, the nursery would wrap it
        raise ConfigError(one_line(f"{url}: cannot connect, or was refused"))
    return came


async def _converse(
    socket: "trio_websocket.WebSocketConnection", recording: Recording, timeout_s: float
) -> list[Json]:
    """Say what the client said, each time after as many answers as it had had by then."""
    import trio
    import trio_websocket

    came: list[Json] = []

    def answered() -> int:
        return sum(event.get("type") == Server.RESPONSE_DONE for event in came)

    async def hear_while(missing: Callable[[], bool], limit_s: float) -> None:
        with trio.move_on_after(limit_s):
            while missing():
                came.append(json.loads(await socket.get_message()))

    try:
        if recording.asked:
            update = events.session_update(recording.asked, "rtpipe_replay")
            await socket.send_message(json.dumps(update))
        answers = 0
        for direction, event in recording.events:
            if direction != UPSTREAM:
                answers += event.get("type") == Server.RESPONSE_DONE
                continue
            await hear_while(lambda wanted=answers: answered() < wanted, timeout_s)  # type: ignore[misc]
            await socket.send_message(json.dumps(event))
        await hear_while(lambda: answered() < answers, timeout_s)
        lines = len(told([event for direction, event in recording.events if direction != UPSTREAM]))
        await hear_while(lambda: len(told(came)) < lines, _REST_LIMIT_S)
    except trio_websocket.ConnectionClosed:
        pass  # what is missing then is what is different
    return came
