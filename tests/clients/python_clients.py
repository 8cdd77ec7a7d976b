"""The clients in Python, each in its own environment with a driver of python/ behind its snippets."""

import json
from collections.abc import Mapping, Sequence

import trio

from tests.clients import install
from tests.clients.compare import by_type, model_left_out
from tests.clients.rows import Row
from tests.clients.runs import CROSSING, TURNS, Turn, compared, program, viewed
from tests.clients.scene import Place, Scene, material

EVERYWHERE = ("TCP", "TLS", "Unix socket")


async def openai_python(scene: Scene, transports: Sequence[str] = EVERYWHERE) -> list[Row]:
    """openai-python over everything rtpipe listens on."""
    version = await _installed("openai", "openai")
    rows = []
    for transport in transports:

        async def run(place: Place, transport: str = transport) -> str:
            text = place.snippet("openai-python-unix" if transport == "Unix socket" else "openai-python")
            if transport == "TLS":
                text = text.replace(f"http://{place.tcp}", f"https://{place.tls}")
            return await _drive("openai", text, {"SSL_CERT_FILE": str(place.authority)})

        rows.append(await compared(Row("openai-python", version, transport), scene, (*TURNS, CROSSING), run))
    return rows


async def openai_beta(scene: Scene) -> list[Row]:
    """The beta module of openai-python, which no model answers any more.

    Through rtpipe it is to be for the model what the same turns of the GA client are without.
    """
    row = Row("openai-python (beta)", await _installed("openai", "openai"), "TCP")

    async def run(place: Place) -> str:
        return await _drive(
            "openai", place.snippet("openai-python" if place is scene.model else "openai-beta")
        )

    return [await compared(row, scene, (*TURNS, CROSSING), run)]


async def openai_agents(scene: Scene) -> list[Row]:
    """OpenAI's Agents SDK with its runner, which answers tool calls by itself, and asks for what it heard."""
    turns = viewed(model_left_out, audio=by_type, heard_audio=by_type)
    return [await _one(scene, "openai-agents", "openai-agents", turns)]


async def livekit(scene: Scene) -> list[Row]:
    """LiveKit's plugin, without a LiveKit server. It has speech transcribed."""
    turns = viewed(model_left_out, audio=by_type, heard_audio=by_type)
    return [await _one(scene, "livekit", "livekit-plugins-openai", turns)]


async def pipecat(scene: Scene) -> list[Row]:
    """Pipecat's service in a pipeline of its own."""
    return [await _one(scene, "pipecat", "pipecat-ai", viewed(model_left_out))]


async def _one(scene: Scene, name: str, package: str, turns: Sequence[Turn]) -> Row:
    row = Row(package, await _installed(name, package), "TCP")

    async def run(place: Place) -> str:
        return await _drive(name, place.snippet(name))

    return await compared(row, scene, turns, run)


async def _installed(environment: str, package: str) -> str:
    await trio.to_thread.run_sync(install.python, environment)
    return install.pinned(environment, package)


async def dispatched(place: Place) -> list[Row]:
    """Clients of a gateway that runs a slow tool of which they know nothing."""
    rows = []
    for name, package in (
        ("openai-agents", "openai-agents"),
        ("livekit", "livekit-plugins-openai"),
        ("pipecat", "pipecat-ai"),
    ):
        row = Row(package, await _installed(name, package), "TCP, dispatched")
        report = await _drive(name, place.snippet(name), more={"dispatched": "yes"})
        row.read(report, ["dispatched"], f"not reached: {report[-1500:]}")
        rows.append(row)
    return rows


async def _drive(
    environment: str,
    snippet: str,
    variables: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    given = json.dumps({"snippet": snippet, "material": {**json.loads(material()), **(more or {})}})
    command = [install.python(environment), f"{environment.replace('-', '_')}_turns.py"]
    return await program(command, given, install.PYTHON, variables or {})
