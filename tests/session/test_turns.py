"""Turn gating: the caller's turns are answered because the host asks."""

import pytest
import trio

from rtpipe import Plugin, facts, on_client, on_server
from rtpipe.testing import ChainHarness

VAD = {"type": "semantic_vad", "eagerness": "low", "create_response": True, "interrupt_response": True}


def session(**detector):
    return {"type": "realtime", "audio": {"input": {"turn_detection": {**VAD, **detector}}}}


class Gates(Plugin[None, None]):
    def session_open(self, session):
        session.gate_turns(True)


class Sees(Plugin[None, list]):
    @on_client("response.create")
    def create(self, session, event):
        session.state.append(event.origin)


async def begin(chain, *, confirm=True):
    await chain.upstream.send({"type": "session.created", "event_id": "e0", "session": session()})
    sent = [e for e in chain.upstream.take() if e["type"] == "session.update"]
    for each in sent if confirm else []:
        await chain.upstream.send({"type": "session.updated", "event_id": "e1", "session": each["session"]})
    return sent[-1:]


async def turn(chain, item_id, *, by_voice=True):
    if by_voice:
        await chain.upstream.send({"type": "input_audio_buffer.speech_stopped", "item_id": item_id})
    await chain.upstream.send({"type": "input_audio_buffer.committed", "item_id": item_id})
    return [e for e in chain.upstream.take() if e["type"] == "response.create"]


async def test_a_turn_by_voice_is_asked_for_and_shown():
    async with ChainHarness({"sees": Sees, "gate": Gates, "sees2": Sees}) as chain:
        (sent,) = await begin(chain)
        assert sent["session"]["audio"]["input"]["turn_detection"]["create_response"] is False
        (shown,) = (e for e in chain.client.take() if e["type"] == "session.created")
        assert shown["session"] == session()
        (create,) = await turn(chain, "i1")
        assert create["event_id"].startswith("rtp_")
        assert chain.state("sees") == chain.state("sees2") == ["host"]
        metadata = create["response"]["metadata"]
        chain.client.take()
        for kind in ("response.created", "response.done"):
            response = {"id": "r1", "status": "completed", "output": [], "metadata": metadata}
            await chain.upstream.send({"type": kind, "event_id": "e", "response": response})
            (shown,) = chain.client.take()
            assert shown["response"] == {"id": "r1", "status": "completed", "output": [], "metadata": None}
        (ended,) = (f for f in chain.facts if isinstance(f, facts.ResponseEnded))
        assert ended.origin == "host"
        assert await turn(chain, "i2", by_voice=False) == []
        started = [(f.item_id, f.by) for f in chain.facts if isinstance(f, facts.TurnStarted)]
        assert started == [("i1", "vad"), ("i2", "client")]


class Slow(Plugin[None, list]):
    @on_server("input_audio_buffer.committed")
    async def committed(self, session, event):
        await trio.sleep(0.1)
        session.state.append("committed")

    @on_client("response.create")
    def create(self, session, event):
        session.state.append("create")


async def test_stages_see_the_turn_before_the_create_that_asks_for_its_answer(autojump_clock):
    async with ChainHarness({"slow": Slow, "gate": Gates}) as chain:
        await begin(chain)
        await turn(chain, "i1")
        await trio.sleep(1)
        assert chain.state("slow") == ["committed", "create"]


async def test_two_users_share_the_switch():
    async with ChainHarness({"a": Sees, "b": Sees}) as chain:
        assert await begin(chain) == []
        a, b = chain.session.view("a"), chain.session.view("b")
        a.gate_turns(True)
        await chain.settle()
        (sent,) = chain.upstream.take()
        assert sent["session"]["audio"]["input"]["turn_detection"] == {**VAD, "create_response": False}
        b.gate_turns(True)
        a.gate_turns(False)
        a.gate_turns(False)
        await chain.settle()
        assert chain.upstream.payloads == []
        b.gate_turns(False)
        await chain.settle()
        (sent,) = chain.upstream.take()
        assert sent["session"]["audio"]["input"]["turn_detection"] == VAD


async def test_until_the_upstream_has_confirmed_it_answers_by_itself():
    async with ChainHarness({"gate": Gates}) as chain:
        await begin(chain, confirm=False)
        assert await turn(chain, "i1") == []
        await chain.upstream.send({"type": "session.updated", "session": session(create_response=False)})
        assert len(await turn(chain, "i2")) == 1
        # Switched off, but the upstream does not know yet: somebody has to ask.
        chain.session.view("gate").gate_turns(False)
        await chain.settle()
        assert len(await turn(chain, "i3")) == 1
        await chain.upstream.send({"type": "session.updated", "session": session()})
        assert await turn(chain, "i4") == []


async def test_a_client_that_answers_turns_itself_is_left_alone():
    async with ChainHarness({"gate": Gates}) as chain:
        await begin(chain)
        config = session(create_response=False)
        await chain.client.send({"type": "session.update", "session": config})
        await chain.upstream.send({"type": "session.updated", "session": config})
        assert await turn(chain, "i1") == []
        assert chain.client.take()[-3]["session"] == config  # shown as asked


async def test_a_turn_before_the_client_answers_itself_is_still_answered():
    async with ChainHarness({"gate": Gates}) as chain:
        await begin(chain)
        config = session(create_response=False)
        await chain.client.send({"type": "session.update", "session": config})
        # Ungated, the model would have answered this one by itself: it has not heard of the update.
        assert len(await turn(chain, "i1")) == 1
        await chain.upstream.send({"type": "session.updated", "session": config})
        assert await turn(chain, "i2") == []


async def test_the_detector_that_is_gated_is_the_upstreams_own():
    async with ChainHarness({"gate": Gates}) as chain:
        # No turn may be answered meanwhile, so something is sent before it is known.
        (first,) = chain.upstream.take()
        assert first["session"]["audio"]["input"]["turn_detection"]["create_response"] is False
        (second,) = await begin(chain)
        detector = second["session"]["audio"]["input"]["turn_detection"]
        assert detector == {**VAD, "create_response": False}


@pytest.mark.parametrize("default", [None, {**VAD, "create_response": False}])
async def test_what_the_upstream_does_by_itself_is_restored_where_nothing_needs_gating(default):
    async with ChainHarness({"gate": Gates}) as chain:
        chain.upstream.take()
        theirs = {"type": "realtime", "audio": {"input": {"turn_detection": default}}}
        await chain.upstream.send({"type": "session.created", "event_id": "e0", "session": theirs})
        (update,) = chain.upstream.take()
        assert update["session"]["audio"]["input"]["turn_detection"] == default


async def test_nothing_is_gated_where_there_is_no_detector():
    async with ChainHarness({"gate": Gates}) as chain:
        await begin(chain)
        config = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        await chain.client.send({"type": "session.update", "event_id": "u", "session": config})
        assert chain.upstream.take() == [{"type": "session.update", "event_id": "u", "session": config}]
        await chain.upstream.send({"type": "session.updated", "session": config})
        assert await turn(chain, "i1") == []


@pytest.mark.parametrize("says_so", [True, False])
async def test_transcription_sessions_have_no_answers_to_gate(says_so):
    async with ChainHarness({"gate": Gates}, session_type="transcription") as chain:
        assert chain.upstream.payloads == []
        config = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
        if says_so:
            config["type"] = "transcription"
        await chain.upstream.send({"type": "session.created", "session": config})
        assert chain.upstream.payloads == []
        assert await turn(chain, "i1") == []


class OpensBadly(Gates):
    on_error = "pass"

    def session_open(self, session):
        session.gate_turns(True)
        raise ValueError


async def test_an_absent_stage_gates_nothing():
    async with ChainHarness({"gate": OpensBadly}) as chain:
        assert chain.upstream.payloads == []
