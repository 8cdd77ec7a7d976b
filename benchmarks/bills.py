"""What conversations cost, with and without the plugins that save money: ``python -m benchmarks.bills``.

The simulated model reads the conversation anew for each answer, caches as the service does (equal beginnings,
in steps of 64 tokens, of the last contexts) and bills what it read and said. Every conversation runs twice,
over memory connections: through an empty chain, and through image-compressor and cost-governor. Both bills
are made from the usage that the model reports, with the prices that come with the governor.
"""

import base64
import io
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio
from PIL import Image, ImageDraw

from rtpipe import Json
from rtpipe.testing import ChainHarness, SimOptions, Store, sim_upstream
from rtpipe_cost_governor import CostGovernor
from rtpipe_cost_governor.bill import bill_for
from rtpipe_cost_governor.prices import Table
from rtpipe_image_compressor import ImageCompressor

MODEL = "gpt-realtime-2.1"
INSTRUCTIONS = "You are the voice of a shop. Be brief, be kind, and never promise what is not in stock. " * 12
TURNS_S = 0.02
_BYTES_PER_S = 48_000

Turn = list[Json]


@dataclass(frozen=True)
class Bill:
    """What one conversation came to. Money is micro-dollars."""

    answers: int
    micro_usd: int
    image_micro_usd: int
    input_tokens: int
    cached_tokens: int


def main() -> None:
    """Print both bills of every conversation."""
    for name, turns in (
        ("support call", support_call),
        ("30-minute ramble", ramble),
        ("help desk", help_desk),
    ):
        for title, alters in (("", lambda _: None), (", instructions changed each turn", _restless)):
            without = trio.run(converse, turns, alters, False)
            governed = trio.run(converse, turns, alters, True)
            print(f"{name}{title}: {without.answers} answers")
            for what, bill in (("without", without), ("with", governed)):
                usd, images = bill.micro_usd / 1e6, bill.image_micro_usd / 1e6
                share = bill.cached_tokens / bill.input_tokens
                read = f"{bill.input_tokens:9,d} tokens read, {share:4.0%} cached"
                print(f"  {what:<8} {usd:9.4f} USD, images {images:7.4f} USD, {read}")
            print(f"  saved    {1 - governed.micro_usd / without.micro_usd:9.0%}")


def support_call() -> Iterator[Turn]:
    """Two minutes: twelve questions of four seconds."""
    for _ in range(12):
        yield [*_spoken(4.0)]


def ramble() -> Iterator[Turn]:
    """Thirty minutes of somebody who likes to talk: sixty turns of twenty-six seconds."""
    for _ in range(60):
        yield [*_spoken(26.0)]


def help_desk() -> Iterator[Turn]:
    """Twelve screenshots, each with a question."""
    for number in range(12):
        image = {"type": "input_image", "image_url": _screenshot(number)}
        text = {"type": "input_text", "text": f"What does step {number} want from me?"}
        message = {"type": "message", "role": "user", "content": [image, text]}
        yield [{"type": "conversation.item.create", "item": message}]


def _restless(turn: int) -> Json | None:
    text = f"{INSTRUCTIONS} It is turn {turn}."
    return {"type": "session.update", "session": {"type": "realtime", "instructions": text}}


def _spoken(seconds: float) -> Iterator[Json]:
    noise = random.Random(1).randbytes(int(seconds * _BYTES_PER_S) // 2 * 2)
    yield {"type": "input_audio_buffer.append", "audio": base64.b64encode(noise).decode()}
    yield {"type": "input_audio_buffer.commit"}


def _screenshot(number: int) -> str:
    image = Image.new("RGB", (1920, 1080), "white")
    draw = ImageDraw.Draw(image)
    for line in range(30):
        draw.text(
            (40, 20 + 34 * line), f"Step {number}, line {line}: choose your printer, then continue.", "black"
        )
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


async def converse(
    turns: Callable[[], Iterator[Turn]], alters: Callable[[int], Json | None], governed: bool
) -> Bill:
    """Hold one conversation; what it cost."""
    stages: dict[str, Any] = {}
    if governed:
        stages = {
            "image-compressor": ImageCompressor,
            "cost-governor": (CostGovernor, {"caps": {"budget_usd": "1000"}}),
        }
    done: list[Json] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Store.at(Path(folder) / "store.sqlite3") as store,
            ChainHarness(
                stages,
                store=store.namespace,
                model=MODEL,
                upstream=lambda nursery: sim_upstream(nursery, SimOptions(pace=0, seed=1), MODEL),
            ) as chain,
        ):
            session = {
                "type": "realtime",
                "instructions": INSTRUCTIONS,
                "audio": {"input": {"turn_detection": None}},
            }
            await chain.client.send({"type": "session.update", "session": session})
            for number, turn in enumerate(turns()):
                change = alters(number)
                for event in [*([change] if change else []), *turn, {"type": "response.create"}]:
                    await chain.client.send(event)
                done.append(await _answer(chain))
    return _added_up(done)


async def _answer(chain: ChainHarness) -> Json:
    with trio.fail_after(60):
        while True:
            for payload in chain.client.payloads:
                if b'"response.done"' in payload:
                    chain.client.payloads.clear()
                    return dict(msgspec.json.decode(payload))
            await trio.sleep(TURNS_S)


def _added_up(done: list[Json]) -> Bill:
    table = Table({}, {})
    price = table.price(MODEL, "sim")
    bills = [bill for event in done if (bill := bill_for(event, price, price)) is not None]
    usages = [bill.usage for bill in bills]
    return Bill(
        answers=len(bills),
        micro_usd=sum(bill.micro_usd for bill in bills),
        image_micro_usd=sum(bill.image_micro_usd for bill in bills),
        input_tokens=sum(each.input_text + each.input_audio + each.input_image for each in usages),
        cached_tokens=sum(each.cached_text + each.cached_audio + each.cached_image for each in usages),
    )


if __name__ == "__main__":
    main()
