"""A daemon that runs the model's calls itself: of a tool that takes longer than it can be silent."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.clients.scene import Place
from tests.daemon.kit import config, running

STAGE = """
import trio
from rtpipe import Plugin, Tool, ToolCall

class Lookup(Plugin[None, None]):
    def tools(self) -> list[Tool]:
        return [Tool(name="lookup", description="For a test.", parameters={"type": "object"})]

    async def tool_call(self, call: ToolCall) -> str | None:
        await trio.sleep(4)
        return "found"
"""


@asynccontextmanager
async def dispatching(model: Place) -> AsyncIterator[Place]:
    """The daemon in front of *model*."""
    with tempfile.TemporaryDirectory(prefix="rtpipe-clients-") as name:
        folder = Path(name)
        (folder / "lookup_stage.py").write_text(STAGE)
        info = folder / "lookup_stage-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lookup-stage\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[rtpipe.plugins]\nlookup = lookup_stage:Lookup\n")
        file = folder / "rtpipe.toml"
        chain = ["auth", "lookup", "tool-dispatcher", "response-lock"]
        file.write_text(config(folder / "state", f"ws://{model.tcp}/v1/realtime", chain=chain))
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        async with running(file, environment={"PYTHONPATH": path}) as daemon:
            host, port = daemon.address
            yield replace(model, tcp=f"{host}:{port}")
