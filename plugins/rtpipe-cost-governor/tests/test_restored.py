"""A conversation that goes on after the gateway was restarted."""

from types import ModuleType
from typing import Any

STAGE = "cost-governor"
CREATE = {"type": "response.create", "event_id": "c"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


async def answer(kit: ModuleType, chain: Any, response_id: str) -> None:
    """An answer of the model's own accord, of 0.32 USD."""
    await chain.upstream.send(kit.created(response_id))
    await chain.upstream.send(kit.done(response_id, kit.usage(out=(0, 5000))))
    await chain.settle()


async def show(chain: Any) -> list[str]:
    item = {"type": "message", "role": "user", "content": [IMAGE]}
    await chain.client.send({"type": "conversation.item.create", "item": item})
    return chain.client.take_types()


async def test_what_was_spent_before_counts(kit: ModuleType, autojump_clock: Any) -> None:
    options: dict[str, Any] = {"caps": {"budget_usd": "0.9"}, "goodbye_usd": "0"}
    store = kit.Memory()
    async with kit.governed(store=store, **options) as chain:
        for response_id in ("r1", "r2"):
            await answer(kit, chain, response_id)
        before = chain.snapshot()
        assert chain.state(STAGE).landing == ""
    names = set(store.records)
    async with kit.governed(store=store, restores=before, **options) as chain:
        await answer(kit, chain, "r3")
        assert chain.state(STAGE).landing == "Cost limit reached"
    assert len(set(store.records) - names) == 1  # and writes over nothing in the books


async def test_what_was_counted_before_counts(kit: ModuleType, autojump_clock: Any) -> None:
    caps = {"max_responses": 2, "max_images": 2}
    store = kit.Memory()
    async with kit.governed(store=store, caps=caps) as chain:
        await answer(kit, chain, "r1")
        for _ in range(2):
            assert "error" not in await show(chain)
        context = chain.state(STAGE).context
        before = chain.snapshot()
    async with kit.governed(store=store, caps=caps, restores=before) as chain:
        assert chain.state(STAGE).context == context
        assert "error" in await show(chain)
        await answer(kit, chain, "r2")
        await chain.client.send(CREATE)
        assert chain.state(STAGE).landing == "Response limit reached"
