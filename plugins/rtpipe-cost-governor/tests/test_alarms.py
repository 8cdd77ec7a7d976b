"""What somebody should look at: once in its period, and not before."""

from types import ModuleType
from typing import Any

from rtpipe import facts

STAGE = "cost-governor"


def alerts(chain: Any) -> list[str]:
    return [fact.name for fact in chain.facts if isinstance(fact, facts.Alerted)]


async def answer(kit: ModuleType, chain: Any, number: int, used: Any, status: str = "completed") -> None:
    await chain.upstream.send(kit.created(f"r{number}"))
    await chain.upstream.send(kit.done(f"r{number}", used, status, output=["x"]))
    await chain.settle()


async def test_the_fraction_of_a_budget_is_the_operators(kit: ModuleType) -> None:
    async with kit.governed(
        store=kit.Memory(), alerts={"budget_fraction": 0.1}, caps={"budget_usd": "5"}
    ) as chain:
        for number in range(9):
            await answer(kit, chain, number, kit.usage(out=(0, 1000)))
            assert alerts(chain) == (["budget"] if number >= 7 else [])


async def test_images_of_one_session(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), alerts={"images_usd": "0.01"}) as chain:
        for number in range(4):
            await answer(kit, chain, number, kit.usage(image=1000))
            assert alerts(chain) == (["images"] if number >= 1 else [])


async def test_a_slow_tool_once_a_day(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), alerts={"tool_s": 2.0}) as chain:
        for seconds, raised in ((2.0, []), (2.1, ["slow-tool"]), (9.0, ["slow-tool"])):
            fact = facts.ToolCalled(name="f", call_id="c", stage="s", duration_s=seconds, status="ok")
            chain.session.record(fact)
            await chain.settle()
            assert alerts(chain) == raised


async def test_answers_that_fail(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), alerts={"error_rate": 0.2}) as chain:
        for number in range(24):
            failed = number in (5, 11, 17) or number >= 20  # 3 of 20, 4 of 21, 5 of 22
            await answer(kit, chain, number, kit.usage(1), "failed" if failed else "completed")
            assert alerts(chain) == (["errors"] if number >= 21 else [])


async def test_a_spike_without_more_sessions(kit: ModuleType) -> None:
    async with kit.governed(
        store=kit.Memory(), alerts={"spike_factor": 2.0}, caps={"budget_usd": "1000"}
    ) as chain:
        books = chain.plugin(STAGE).books
        for number, tokens in enumerate((20_000, 20_000, 20_000, 39_000, 41_000, 80_000)):
            books.now = lambda number=number: 1_800_000_000.0 + number * 3600
            await answer(kit, chain, number, kit.usage(out=(0, tokens)))
            assert [name for name in alerts(chain) if name == "spike"] == ["spike"] * (
                number - 4 if number > 4 else 0
            )
