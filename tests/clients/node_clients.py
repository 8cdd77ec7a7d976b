"""The clients for Node.js, each with a driver of node/ behind its snippet."""

import trio

from tests.clients import install
from tests.clients.compare import by_type, model_left_out, updates_crossing
from tests.clients.rows import Row
from tests.clients.runs import TURNS, Turn, compared, program, viewed
from tests.clients.scene import Place, Scene, material
from tests.daemon.kit import KEY

WRONG_KEY = Turn("wrong key", reaches_model=False)


async def openai_node(scene: Scene) -> list[Row]:
    """openai-node, which speaks ``wss://`` and nothing else."""
    await trio.to_thread.run_sync(install.node)
    version = f"{install.npm_version('openai')} on Node {install.npm_version('node')}"

    async def run(place: Place) -> str:
        return await _drive("openai_node.mjs", place.snippet("openai-node"), "client, realtime", place)

    return [await compared(Row("openai-node", version, "TLS"), scene, (*TURNS, WRONG_KEY), run)]


async def agents_realtime(scene: Scene) -> list[Row]:
    """OpenAI's Agents SDK for JavaScript, over its WebSocket transport."""
    await trio.to_thread.run_sync(install.node)
    version = install.npm_version("@openai/agents-realtime")

    async def run(place: Place) -> str:
        return await _drive("agents_realtime.mjs", place.snippet("agents-realtime"), "session", place)

    turns = [*viewed(model_left_out, updates_crossing, audio=by_type, heard_audio=by_type), WRONG_KEY]
    return [await compared(Row("@openai/agents-realtime", version, "TCP"), scene, turns, run)]


async def dispatched(place: Place) -> list[Row]:
    """OpenAI's Agents SDK at a gateway that runs a slow tool of which it knows nothing."""
    await trio.to_thread.run_sync(install.node)
    row = Row("@openai/agents-realtime", install.npm_version("@openai/agents-realtime"), "TCP, dispatched")
    snippet = place.snippet("agents-realtime")
    report = await _drive("agents_realtime.mjs", snippet, "session", place, dispatched=True)
    row.read(report, ["dispatched"], f"not reached: {report[-1500:]}")
    return [row]


async def _drive(driver: str, snippet: str, made: str, place: Place, *, dispatched: bool = False) -> str:
    """Run a driver behind its snippet, which it calls for every session."""
    lines = snippet.splitlines()
    imports = "\n".join(line for line in lines if line.startswith("import "))
    body = "\n".join(line for line in lines if not line.startswith("import "))
    text = f"""
{imports}
const material = {material()};
const dispatched = {str(dispatched).lower()};
{_function("snippet", body, made)}
{_function("stranger", body.replace(KEY, "sk-wrong"), made)}
{(install.NODE / driver).read_text("utf-8")}"""
    variables = {"NODE_EXTRA_CA_CERTS": str(place.authority)}
    return await program([install.node(), "--input-type=module", "-"], text, install.NODE, variables)


def _function(name: str, body: str, made: str) -> str:
    return f"async function {name}() {{\n{body}\nreturn {{ {made} }};\n}}"
