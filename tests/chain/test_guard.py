"""The guard: whatever a plugin does, its policy decides, one line names it, nobody else is harmed."""

import logging
import sys

import pytest
import trio

from rtpipe import Drop, Event, Hold, Plugin, Refused, Reject, Reply, on_client, reject
from rtpipe.api.verdicts import Close
from rtpipe.chain.guard import Guard, HookCall
from rtpipe.testing import ChainHarness


async def _raise(session, event):
    raise ValueError("secret\nline")


def _exit(session, event):
    sys.exit(3)


def _interrupt(session, event):
    raise KeyboardInterrupt


async def _hang(session, event):
    await trio.sleep_forever()


async def _swallow_cancellation(session, event):
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise OSError("swallowed") from None


async def _stale(grouped):
    """A Cancelled that was meant for somebody else."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            kept = exc
    if grouped:
        raise BaseExceptionGroup("mixed", [kept, ValueError("x")])
    raise kept


async def _stale_cancelled(session, event):
    await _stale(grouped=False)


async def _stale_group(session, event):
    await _stale(grouped=True)


async def _own_nursery(session, event):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_raise, session, event)
        await trio.sleep_forever()


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


def _unspeakable(session, event):
    raise Unspeakable


def _in_place(session, event):
    event.data["x"] = object()
    return event


def _coroutine(session, event):
    return _hang(session, event)


def _refused(session, event):
    raise Refused(403, "no", "no")


NONSENSE = [
    7,
    [],
    [None],
    "text",
    {},
    Drop(7),
    Drop("\ud800"),
    Hold(None),
    Hold([]),
    Reply("x"),
    Reply([Event({"type": "a"})]),
    Close(1006, ""),
    Close(1005, ""),
    Close([], ""),
    Close(1000.0, ""),
    Close(4000, None),
    Reject(None, 1, "x"),
    Reject(None, "x", "\udfff"),
]

FAILURES = {
    "ValueError": _raise,
    "SystemExit": _exit,
    "KeyboardInterrupt": _interrupt,
    "timeout": _hang,
    "OSError": _swallow_cancellation,
    "Cancelled": _stale_cancelled,
    "BaseExceptionGroup": _stale_group,
    "ExceptionGroup": _own_nursery,
    "Unspeakable": _unspeakable,
    "nonsense": _in_place,
    "coroutine": _coroutine,
}


class Faulty(Plugin[None, None]):
    act = staticmethod(lambda session, event: None)

    @on_client("response.create", "response.cancel")
    async def take(self, session, event):
        returned = type(self).act(session, event)
        return await returned if hasattr(returned, "__await__") else returned


class FaultyDef(Plugin[None, None]):
    act = Faulty.act

    @on_client("response.create", "response.cancel")
    def take(self, session, event):
        return type(self).act(session, event)


def faulty(act):
    base = FaultyDef if act is _coroutine else Faulty
    return type("Faulty", (base,), {"act": staticmethod(act)})


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("policy", ["close", "drop", "pass"])
async def test_every_failure_follows_the_policy(kind, policy, caplog, autojump_clock):
    stages = {"faulty": faulty(FAILURES[kind])}
    async with ChainHarness(stages, on_error={"faulty": policy}) as chain:
        for number in range(3):
            await chain.client.send({"type": "response.create", "event_id": f"e{number}"})
            await trio.sleep(1)
            if policy == "close":
                break
        if policy == "close":
            assert (chain.client.closing.code, chain.client.closing.reason) == (1011, "plugin faulty failed")
            assert chain.upstream.payloads == []
        elif policy == "drop":
            errors = chain.client.take()
            assert [e["error"]["event_id"] for e in errors] == ["e0", "e1", "e2"]
            assert "faulty" in errors[0]["error"]["message"]
            assert chain.upstream.payloads == []
        else:
            assert len(chain.upstream.take()) == 3
            assert chain.client.payloads == []
        chain.check_fates()
        count = 1 if policy == "close" else 3
        assert chain.guard.failures == {("faulty", "take", kind): count}
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(lines) == 1, lines
    assert "faulty" in lines[0]
    assert "take" in lines[0]
    assert "\n" not in lines[0]


@pytest.mark.parametrize("verdict", NONSENSE, ids=repr)
async def test_nonsense_is_named_and_harms_nobody(verdict, caplog):
    stages = {"faulty": faulty(lambda session, event: verdict)}
    async with ChainHarness(stages, on_error={"faulty": "drop"}) as chain:
        await chain.client.send({"type": "response.create"})
        assert chain.client.take_types() == ["error"]
        assert chain.guard.failures == {("faulty", "take", "nonsense"): 1}
        assert chain.session.ending is None
    assert "internal error" not in caplog.text


@pytest.mark.parametrize("exc", [Refused(403, "no_way", "No."), None])
async def test_refusing_an_event_by_raising_rejects_it(exc):
    async with ChainHarness({"faulty": faulty(_refused)}) as chain:
        await chain.client.send({"type": "response.create", "event_id": "e"})
        (error,) = chain.client.take()
        assert (error["error"]["code"], error["error"]["event_id"]) == ("no", "e")


async def test_a_late_answer_after_swallowed_cancellation_counts(autojump_clock):
    async def late(session, event):
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return reject(event, "late", "late")

    async with ChainHarness({"faulty": faulty(late)}) as chain:
        await chain.client.send({"type": "response.create"})
        await trio.sleep(1)
        assert chain.client.take()[0]["error"]["code"] == "late"


async def test_real_cancellation_passes_alone_or_with_the_rest(autojump_clock):
    guard = Guard()

    async def group():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("on the way out")

    for function in (trio.sleep_forever, group):
        with trio.move_on_after(1) as scope:
            await guard.call(HookCall("s", "h", function, True, None, "close"))
        assert scope.cancelled_caught
    assert guard.failures == {("s", "h", "ValueError"): 1} or guard.failures == {
        ("s", "h", "ExceptionGroup"): 1
    }


async def test_what_is_made_of_garbage_stays_out_of_the_host(caplog):
    def garbage(session, event):
        return Event.received(b"nonsense", event.type, "client")

    async with ChainHarness({"faulty": faulty(garbage)}) as chain:
        await chain.client.send({"type": "response.create"})
        assert chain.upstream.payloads == [b"nonsense"]
        chain.check_fates()
    assert "internal error" not in caplog.text
