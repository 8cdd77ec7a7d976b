"""Which create goes up when."""

from typing import Any

import pytest

from rtpipe import Event, Plugin, facts
from rtpipe.testing import ChainHarness, play
from rtpipe_response_lock import ResponseLock

LOCK = {"response-lock": ResponseLock}


def waits(chain: ChainHarness) -> list[str]:
    return [fact.outcome for fact in chain.facts if isinstance(fact, facts.Waited)]


async def plays(text: str, stages: dict[str, Any] = LOCK, **harness: Any) -> ChainHarness:
    """Play a transcript; no event may be lost, no hook fail."""
    async with ChainHarness(stages, **harness) as chain:
        await play(text, chain)
        chain.check_fates()
        assert not chain.guard.failures
    return chain


class Passive(Plugin[None, None]):
    """A plugin of whose view the test makes use."""


# --- creates that cross


async def test_the_second_create_waits_for_the_first_answer() -> None:
    chain = await plays(
        """
        client   -> response.create {"event_id": "a"}
        upstream <- response.create {"event_id": "a"}
        # the window is open from here on, not only from response.created
        client   -> response.create {"event_id": "b"}
        upstream <- nothing
        upstream -> response.created {"response": {"id": "r1"}}
        client   <- response.created
        upstream <- nothing
        upstream -> response.done {"response": {"id": "r1", "status": "completed"}}
        client   <- response.done
        upstream <- response.create {"event_id": "b"}
        # a released create has taken the lock at once
        client   -> response.create {"event_id": "c"}
        upstream <- nothing
        upstream -> response.created {"response": {"id": "r2"}}
        upstream -> response.done {"response": {"id": "r2", "status": "completed"}}
        client   <- response.created
        client   <- response.done
        upstream <- response.create {"event_id": "c"}
        """
    )
    assert waits(chain) == ["released"] * 2


async def test_of_ten_creates_exactly_the_next_goes_each_time() -> None:
    async with ChainHarness(LOCK) as chain:
        for number in range(10):
            await chain.client.send({"type": "response.create", "event_id": f"c{number}"})
        for number in range(10):
            assert [event["event_id"] for event in chain.upstream.take()] == [f"c{number}"]
            response = {"id": f"r{number}", "conversation_id": "conv"}
            await chain.upstream.send({"type": "response.created", "response": response})
            await chain.upstream.send({"type": "response.done", "response": response})
        assert chain.upstream.take() == []
        assert chain.client.take_types() == ["response.created", "response.done"] * 10
        chain.check_fates()


@pytest.mark.parametrize("status", ["completed", "cancelled", "incomplete", "failed"])
async def test_every_way_to_end_lets_the_next_one_go(status: str) -> None:
    await plays(
        f"""
        client   -> response.create
        client   -> response.create {{"event_id": "b"}}
        upstream <- response.create
        upstream -> response.created {{"response": {{"id": "r1"}}}}
        upstream -> response.done {{"response": {{"id": "r1", "status": "{status}"}}}}
        client   <- response.created
        client   <- response.done
        upstream <- response.create {{"event_id": "b"}}
        """
    )


async def test_after_a_cancel_a_create_waits_for_the_response_done() -> None:
    await plays(
        """
        client   -> response.create
        upstream <- response.create
        upstream -> response.created {"response": {"id": "r1"}}
        client   <- response.created
        client   -> response.cancel
        upstream <- response.cancel
        client   -> response.create
        upstream <- nothing
        upstream -> response.done {"response": {"id": "r1", "status": "cancelled"}}
        client   <- response.done
        upstream <- response.create
        """
    )


# --- responses nobody here asked for, and those that do not count


async def test_a_response_to_the_voice_takes_the_lock() -> None:
    await plays(
        """
        upstream -> response.created {"response": {"id": "r1", "conversation_id": "conv"}}
        client   <- response.created
        client   -> response.create
        upstream <- nothing
        upstream -> response.done {"response": {"id": "r1", "conversation_id": "conv"}}
        client   <- response.done
        upstream <- response.create
        """
    )


async def test_a_free_lock_learns_from_a_refusal_that_a_response_is_active(autojump_clock: Any) -> None:
    refusal = '{"error": {"code": "conversation_already_has_active_response", "event_id": "other"}}'
    await plays(
        f"""
        upstream -> error {refusal}
        client   <- error
        client   -> response.create {{"event_id": "b"}}
        upstream <- nothing
        # and does not wait for ever for it to be announced
        wait 9.9
        upstream <- nothing
        wait 0.2
        upstream <- response.create {{"event_id": "b"}}
        """
    )


async def test_an_explicit_default_conversation_counts() -> None:
    await plays(
        """
        client   -> response.create {"response": {"conversation": "auto"}}
        client   -> response.create {"response": {"conversation": "auto"}}
        upstream <- response.create
        upstream <- nothing
        """
    )


async def test_a_response_done_of_another_response_frees_nothing() -> None:
    await plays(
        """
        client   -> response.create
        client   -> response.create
        upstream <- response.create
        upstream -> response.done {"response": {"id": "earlier"}}
        upstream -> response.created {"response": {"id": "r1"}}
        upstream -> response.done {"response": {"id": "earlier"}}
        client   <- response.done
        client   <- response.created
        client   <- response.done
        upstream <- nothing
        """
    )


async def test_responses_without_an_id_count_too() -> None:
    await plays(
        """
        upstream -> response.created {"response": null}
        client   -> response.create
        upstream <- nothing
        upstream -> response.done
        client   <- response.created
        client   <- response.done
        upstream <- response.create
        """
    )


# --- what waits behind a held create, and what passes it


async def test_order_behind_a_held_create() -> None:
    silent = '"conversation": "none", "output_modalities": ["text"]'
    await plays(
        """
        upstream -> response.created {"response": {"id": "r1"}}
        client   <- response.created
        client   -> response.create {"event_id": "b"}
        client   -> conversation.item.create {"event_id": "i"}
        client   -> session.update {"event_id": "u", "session": {}}
        client   -> response.create {"event_id": "o", "response": {%s}}
        client   -> response.create {"event_id": "c"}
        client   -> conversation.item.create {"event_id": "j"}
        upstream <- nothing
        client   -> response.cancel
        client   -> conversation.item.truncate {"item_id": "x"}
        client   -> input_audio_buffer.append {"audio": "AAAA"}
        upstream <- response.cancel
        upstream <- conversation.item.truncate
        upstream <- input_audio_buffer.append
        upstream <- nothing
        client   -> input_audio_buffer.commit
        # an append waits for a commit that waits
        client   -> input_audio_buffer.append {"audio": "BBBB"}
        upstream <- nothing
        upstream -> response.done {"response": {"id": "r1"}}
        client   <- response.done
        upstream <- response.create {"event_id": "b"}
        upstream <- conversation.item.create {"event_id": "i"}
        upstream <- session.update
        upstream <- response.create {"event_id": "o"}
        upstream <- nothing
        upstream -> response.created {"response": {"id": "r2"}}
        upstream -> response.done {"response": {"id": "r2"}}
        client   <- response.created
        client   <- response.done
        upstream <- response.create {"event_id": "c"}
        upstream <- conversation.item.create {"event_id": "j"}
        upstream <- input_audio_buffer.commit
        upstream <- input_audio_buffer.append {"audio": "BBBB"}
        """.replace("%s", silent)
    )


async def test_a_create_of_a_stage_before_it_waits_too_and_its_refusal_frees() -> None:
    async with ChainHarness({"asker": Passive, **LOCK}) as chain:
        asker = chain.session.view("asker")
        first = asker.send_upstream(Event({"type": "response.create"}))
        await chain.client.send({"type": "response.create", "event_id": "b"})
        second = asker.send_upstream(Event({"type": "response.create"}))
        await chain.settle()
        assert [event["event_id"] for event in chain.upstream.take()] == [first]
        await chain.upstream.send({"type": "error", "error": {"code": "invalid_value", "event_id": first}})
        assert [event["event_id"] for event in chain.upstream.take()] == ["b"]
        await chain.upstream.send({"type": "error", "error": {"code": "invalid_value", "event_id": "b"}})
        assert [event["event_id"] for event in chain.upstream.take()] == [second]
        assert [event["error"]["event_id"] for event in chain.client.take()] == ["b"]
        chain.check_fates()


async def test_a_create_of_a_later_stage_passes_it_and_is_noticed_when_it_runs() -> None:
    async with ChainHarness({**LOCK, "asker": Passive}) as chain:
        chain.session.view("asker").send_upstream(Event({"type": "response.create"}))
        await chain.settle()
        (create,) = chain.upstream.take()
        await chain.upstream.send(
            {"type": "response.created", "response": {"id": "r1", "metadata": create["response"]["metadata"]}}
        )
        await chain.client.send({"type": "response.create"})
        assert chain.upstream.take() == []
        await chain.upstream.send({"type": "response.done", "response": {"id": "r1"}})
        assert chain.upstream.take_types() == ["response.create"]
