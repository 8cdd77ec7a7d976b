"""What frees the lock besides an answer: refusals, losses, and the rest of a session's life."""

import logging
from typing import Any

import pytest
import trio

from rtpipe import Drop, Event, Plugin, Session, facts, on_client, on_server, reject
from rtpipe.testing import ChainHarness, SessionLimits, TranscriptError, play
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


class Refuser(Plugin[None, None]):
    """Refuses the creates and items that say so."""

    @on_client("response.create", "conversation.item.create")
    def refuse(self, session: Session[None], event: Event) -> Any:
        match (event.data.get("response") or event.data.get("item") or {}).get("metadata"):
            case {"do": "reject"}:
                return reject(event, "no_money", "You have spent it all.")
            case {"do": "drop"}:
                return Drop("I have answered it myself.", ours=True)
        return None


async def refused(create: str, error: str, next_: str = "goes") -> None:
    """Play an error while the create is in flight: does the next one go?"""
    await plays(
        f"""
        client   -> response.create {create}
        client   -> response.create {{"event_id": "next"}}
        upstream <- response.create
        upstream -> error {error}
        client   <- error
        {'upstream <- response.create {"event_id": "next"}' if next_ == "goes" else "upstream <- nothing"}
        """
    )


@pytest.mark.parametrize(
    ("create", "error"),
    [
        ('{"event_id": "a"}', '{"error": {"code": "invalid_value", "event_id": "a"}}'),
        ("", '{"error": {"code": "unknown_parameter", "param": "response.foo"}}'),
        (
            '{"event_id": "a"}',
            '{"error": {"code": "invalid_value", "param": "response.foo", "event_id": null}}',
        ),
        ("", '{"error": {"code": "invalid_value", "param": "response", "event_id": null}}'),
        ("", '{"error": {"code": "invalid_value", "param": "response[0]"}}'),
    ],
)
async def test_a_refused_create_lets_the_next_one_go(create: str, error: str) -> None:
    await refused(create, error)


@pytest.mark.parametrize(
    ("create", "error"),
    [
        ('{"event_id": "a"}', '{"error": {"code": "invalid_value", "event_id": "b"}}'),
        ("", '{"error": {"code": "invalid_value", "param": "response.foo", "event_id": "b"}}'),
        ("", '{"error": {"code": "response_cancel_not_active", "param": "response_id"}}'),
        ("", '{"error": {"code": "invalid_value", "param": "item.id"}}'),
        ("", '{"error": {"code": "input_audio_buffer_commit_empty"}}'),
        ("", '{"error": "nonsense"}'),
    ],
)
async def test_an_error_about_something_else_does_not(create: str, error: str) -> None:
    await refused(create, error, "waits")


async def test_an_error_about_a_create_whose_response_runs_frees_nothing() -> None:
    await plays(
        """
        client   -> response.create {"event_id": "a"}
        client   -> response.create
        upstream <- response.create
        upstream -> response.created {"response": {"id": "r1"}}
        upstream -> error {"error": {"code": "server_error", "event_id": "a"}}
        client   <- response.created
        client   <- error
        upstream <- nothing
        """
    )


@pytest.mark.parametrize("id_", ["", '"event_id": "a", '])
async def test_a_create_that_a_later_stage_refuses_lets_the_next_one_go(id_: str) -> None:
    await plays(
        f"""
        client   -> response.create {{{id_}"response": {{"metadata": {{"do": "reject"}}}}}}
        client   <- error {{"error": {{"code": "no_money"}}}}
        client   -> response.create {{"event_id": "b"}}
        upstream <- response.create {{"event_id": "b"}}
        # the same, when it had to wait before it was refused
        client   -> response.create {{{id_}"response": {{"metadata": {{"do": "reject"}}}}}}
        client   -> response.create {{"event_id": "c"}}
        client   <- nothing
        upstream -> response.created {{"response": {{"id": "r1"}}}}
        upstream -> response.done {{"response": {{"id": "r1"}}}}
        client   <- response.created
        client   <- response.done
        client   <- error {{"error": {{"code": "no_money"}}}}
        upstream <- response.create {{"event_id": "c"}}
        """,
        {**LOCK, "refuser": Refuser},
    )


async def test_a_later_stage_that_refuses_something_else_frees_nothing() -> None:
    await plays(
        """
        client   -> response.create
        upstream <- response.create
        client   -> conversation.item.create {"item": {"metadata": {"do": "reject"}}}
        client   <- error {"error": {"code": "no_money"}}
        client   -> response.create
        upstream <- nothing
        """,
        {**LOCK, "refuser": Refuser},
    )


# --- creates that are lost, and creates that are given up

SWALLOWED = """
    client   -> response.create {"response": {"metadata": {"do": "drop"}}}
    client   -> response.create {"event_id": "b"}
    upstream <- nothing
"""


async def test_a_create_that_vanishes_is_waited_for_only_so_long(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stages = {**LOCK, "refuser": Refuser}
    caplog.set_level(logging.WARNING)
    await plays(
        f"""
        {SWALLOWED}
        wait 9.9
        upstream <- nothing
        wait 0.2
        upstream <- response.create {{"event_id": "b"}}
        # b is lost as well: its time begins when it goes up
        client   -> response.create {{"event_id": "c"}}
        wait 9.7
        upstream <- nothing
        wait 0.4
        upstream <- response.create {{"event_id": "c"}}
        # nothing waits: the lock is free after the time
        wait 10
        client   -> response.create {{"event_id": "d"}}
        upstream <- response.create {{"event_id": "d"}}
        """,
        stages,
    )
    (record,) = caplog.records
    assert "response-lock: no response.created came within 10 s" in record.getMessage()


async def test_created_timeout_s(autojump_clock: Any) -> None:
    text = f"""
        {SWALLOWED}
        wait 1.9
        upstream <- nothing
        wait 0.2
        upstream <- response.create {{"event_id": "b"}}
    """
    options = {"created_timeout_s": 2}
    await plays(text, {"response-lock": (ResponseLock, options), "refuser": Refuser})
    with pytest.RaisesGroup(TranscriptError, flatten_subgroups=True):
        await plays(text, {**LOCK, "refuser": Refuser})


async def test_the_time_limit_is_for_the_beginning_of_a_response_not_for_its_end(autojump_clock: Any) -> None:
    await plays(
        """
        client   -> response.create
        upstream <- response.create
        wait 9
        upstream -> response.created {"response": {"id": "r1"}}
        client   <- response.created
        wait 5
        client   -> response.create
        wait 20
        upstream <- nothing
        upstream -> response.done {"response": {"id": "r1"}}
        client   <- response.done
        upstream <- response.create
        """
    )


async def test_a_create_the_host_gave_up_leaves_the_lock_free(autojump_clock: Any) -> None:
    chain = await plays(
        """
        upstream -> response.created {"response": {"id": "r1"}}
        client   <- response.created
        client   -> response.create {"event_id": "b"}
        client   -> conversation.item.create {"event_id": "i"}
        wait 2
        client   -> response.create {"event_id": "c"}
        wait 4
        client   <- error {"error": {"code": "event_dropped", "event_id": "b"}}
        upstream <- conversation.item.create {"event_id": "i"}
        # the next one begins its own time, and is given up too
        wait 6
        client   <- error {"error": {"code": "event_dropped", "event_id": "c"}}
        upstream -> response.done {"response": {"id": "r1"}}
        client   <- response.done
        client   -> response.create {"event_id": "d"}
        upstream <- response.create {"event_id": "d"}
        """,
        limits=SessionLimits(hold_age_s=5),
    )
    assert waits(chain) == ["expired"] * 2


# --- the rest of its life


async def test_a_replaced_upstream_ends_the_response_that_ran() -> None:
    greeting = {"type": "session.created", "session": {"id": "s"}}
    async with ChainHarness(LOCK) as chain:
        await chain.upstream.send(greeting)
        await chain.upstream.send({"type": "response.created", "response": {"id": "r1"}})
        await chain.client.send({"type": "response.create", "event_id": "b"})
        await chain.client.send({"type": "response.create", "event_id": "c"})
        assert chain.upstream.take() == []
        await chain.replace_upstream("the answer was cut")
        assert [event["event_id"] for event in chain.upstream.take()] == ["b"]
        await chain.upstream.send(greeting)
        # what was asked for and has not begun is asked for again: it keeps the lock
        await chain.replace_upstream("nothing")
        assert [event["event_id"] for event in chain.upstream.take()] == ["b"]
        await chain.upstream.send({"type": "response.created", "response": {"id": "r2"}})
        await chain.upstream.send({"type": "response.done", "response": {"id": "r2"}})
        assert [event["event_id"] for event in chain.upstream.take()] == ["c"]


async def test_another_upstream_has_the_whole_time_to_begin(autojump_clock: Any) -> None:
    async with ChainHarness(LOCK) as chain:
        for event_id in ("a", "b"):
            await chain.client.send({"type": "response.create", "event_id": event_id})
        await trio.sleep(9)
        await chain.replace_upstream()
        await trio.sleep(9)
        assert [event["event_id"] for event in chain.upstream.take()] == ["a"]
        await trio.sleep(2)
        assert [event["event_id"] for event in chain.upstream.take()] == ["b"]


async def test_sessions_of_one_instance_have_locks_of_their_own() -> None:
    async with ChainHarness(LOCK) as one, ChainHarness(LOCK) as other:
        for chain in (one, other):
            await chain.client.send({"type": "response.create"})
            assert chain.upstream.take_types() == ["response.create"]
        assert one.state("response-lock") is not other.state("response-lock")


class Blind(ResponseLock):
    @on_client("response.create")
    def take_or_hold(self, session: Any, event: Event) -> Any:
        raise RuntimeError("broken")

    @on_server("response.done")
    async def pass_on_when_done(self, session: Any, event: Event) -> Any:
        await trio.sleep_forever()


async def test_a_broken_lock_lets_everything_pass(autojump_clock: Any, caplog: Any) -> None:
    async with ChainHarness({"response-lock": Blind}) as chain:
        for _ in range(2):
            await chain.client.send({"type": "response.create"})
        assert chain.upstream.take_types() == ["response.create"] * 2
        await chain.upstream.send({"type": "response.done", "response": {"id": "r1"}})
        await trio.sleep(1)
        assert chain.client.take_types() == ["response.done"]
        assert sum(chain.guard.failures.values()) == 3
