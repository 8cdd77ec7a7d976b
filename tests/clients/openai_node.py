"""openai-node, which speaks ``wss://`` and nothing else."""

import os
import subprocess

import trio

from tests.clients import install
from tests.clients.rows import Row
from tests.clients.scene import Scene, material

TURNS = ("text", "audio", "image", "tool", "error", "close", "wrong key")
_LIMIT_S = 120


async def openai_node(scene: Scene) -> list[Row]:
    """Run the snippet with client.mjs behind it."""
    program = install.node()
    version = f"{install.npm_version('openai')} on Node {install.npm_version('node')}"
    row = Row("openai-node", version, "TLS")
    client = (install.NODE / "client.mjs").read_text("utf-8")
    script = f"{scene.snippet('openai-node')}\nconst material = {material()};\n{client}"
    with trio.move_on_after(_LIMIT_S):
        done = await trio.run_process(
            [str(program), "--input-type=module", "-"],
            stdin=script.encode(),
            cwd=install.NODE,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(scene.authority)},
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output = done.stdout.decode()
        row.read(output, TURNS, f"not reached: {output[-500:]}")
        return [row]
    row.read("", TURNS, f"nothing within {_LIMIT_S} s")
    return [row]
