"""Less to pay: what the configuration asks for, and what is deleted where the upstream ignores that."""

from types import ModuleType
from typing import Any


async def sent(kit: ModuleType, chain: Any, kind: str) -> list[Any]:
    await chain.settle()
    return [event for event in chain.upstream.take() if event["type"] == kind]


async def test_truncation_and_a_bounded_answer_are_asked_for(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), context_tokens=5000, retention_ratio=0.5) as chain:
        (update,) = await sent(kit, chain, "session.update")
        assert update["session"] == {
            "type": "realtime",
            "max_output_tokens": 4096,
            "truncation": {
                "type": "retention_ratio",
                "retention_ratio": 0.5,
                "token_limits": {"post_instructions": 5000},
            },
        }


async def test_what_the_client_asked_for_stays(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory()) as chain:
        await sent(kit, chain, "session.update")
        mine = {"type": "realtime", "truncation": "disabled", "max_output_tokens": 100}
        await chain.client.send({"type": "session.update", "session": mine})
        (update,) = await sent(kit, chain, "session.update")
        assert update["session"] == mine


async def test_a_transcription_session_is_left_alone(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), session_type="transcription") as chain:
        assert await sent(kit, chain, "session.update") == []


async def test_old_audio_is_deleted_where_truncation_is_ignored(kit: ModuleType) -> None:
    async with kit.governed(store=kit.Memory(), context_tokens=1000, retention_ratio=0.5) as chain:
        chain.state("cost-governor").upstream_kind = "azure"
        chain.session.reconfigure()
        for number in range(10):
            content = [{"type": "input_audio" if number % 2 else "input_text", "text": "x"}]
            item = {"id": f"i{number}", "type": "message", "role": "user", "content": content}
            await chain.upstream.send(
                {"type": "conversation.item.added", "event_id": f"a{number}", "item": item}
            )
            item = {"id": f"o{number}", "type": "message", "role": "assistant", "content": []}
            await chain.upstream.send(
                {"type": "conversation.item.added", "event_id": f"b{number}", "item": item}
            )
        chain.upstream.take()
        await chain.upstream.send(kit.created())
        await chain.upstream.send(kit.done(used=kit.usage(0, 900, 0, out=(0, 100))))
        assert await sent(kit, chain, "conversation.item.delete") == []
        await chain.upstream.send(kit.created("r2"))
        await chain.upstream.send(kit.done("r2", kit.usage(0, 950, 0, out=(0, 100))))
        deleted = [event["item_id"] for event in await sent(kit, chain, "conversation.item.delete")]
        assert deleted == ["o0", "i1", "o1", "o2", "i3", "o3", "o4", "i5"]


async def test_without_the_cache_less_is_read(kit: ModuleType) -> None:
    options = {"context_tokens": 9000, "uncached_context_tokens": 2000}
    async with kit.governed(store=kit.Memory(), **options) as chain:
        await sent(kit, chain, "session.update")
        limits = []
        for number, cached in enumerate([0, 0, 1000, 0, 0, 0, 0, 1600, 1600, 1600]):
            await chain.upstream.send(kit.created(f"r{number}"))
            await chain.upstream.send(kit.done(f"r{number}", kit.usage(2000, cached=(cached, 0, 0))))
            for update in await sent(kit, chain, "session.update"):
                limits.append((number, update["session"]["truncation"]["token_limits"]["post_instructions"]))
                session = {"type": "realtime", **update["session"]}
                await chain.upstream.send({"type": "session.updated", "event_id": "u", "session": session})
        assert limits == [(5, 2000), (9, 9000)]
