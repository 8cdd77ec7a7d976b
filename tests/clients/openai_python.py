"""openai-python over everything rtpipe listens on, with the conversations of tests/daemon."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from textwrap import indent
from typing import Any
from unittest.mock import patch

import openai
import trio

from tests.clients.rows import Row
from tests.clients.scene import Scene
from tests.daemon.test_openai_python import committed_audio, errors, heard_audio, image, text_turn, tool_turn
from tests.daemon.wire import WAIT_S

TURNS = {
    "text": text_turn,
    "audio": committed_audio,
    "heard audio": heard_audio,
    "image": image,
    "tool": tool_turn,
    "error": errors,
}


async def openai_python(scene: Scene) -> list[Row]:
    """Run the snippets with a turn in the place of their dots."""
    tcp = scene.snippet("openai-python")
    snippets = {
        "TCP": tcp,
        "TLS": tcp.replace(f"http://{scene.tcp}", f"https://{scene.tls}"),
        "Unix socket": scene.snippet("openai-python-unix"),
    }
    rows = []
    for transport, snippet in snippets.items():
        row = Row("openai-python", openai.__version__, transport)
        with patch.dict(os.environ, SSL_CERT_FILE=str(scene.authority)):
            await trio.to_thread.run_sync(asyncio.run, _turns(_program(snippet), row))
        rows.append(row)
    return rows


def _program(snippet: str) -> Callable[..., Awaitable[None]]:
    body = snippet.replace("    ...\n", "    await turn(connection)\n")
    names: dict[str, Any] = {}
    exec(f"async def program(turn):\n{indent(body, '    ')}", names)  # noqa: S102
    return names["program"]


async def _turns(program: Callable[..., Awaitable[None]], row: Row) -> None:
    for name, turn in TURNS.items():
        try:
            async with asyncio.timeout(WAIT_S):
                await program(lambda connection, turn=turn: turn(connection, []))
            row.ok.append(name)
        except Exception as exc:
            row.failed[name] = repr(exc)
