"""The composed configuration, against an upstream that the test plays."""

import msgspec
import trio

from rtpipe import Plugin
from rtpipe.api.principal import Principal
from rtpipe.testing import ChainHarness
from rtpipe.testing.harness import End
from rtpipe.transport.memory import memory_pair

DEFAULTS = {"type": "realtime", "id": "sess_1", "model": "m", "tools": [], "instructions": "be nice"}


class State:
    def __init__(self):
        self.fields = {}
        self.session = None


class Composes(Plugin[None, State]):
    """Sets what the test says; told so before the session opens by *fields*."""

    on_error = "pass"
    fields = None

    def session_open(self, session):
        session.state.fields = dict(self.fields or {})

    def configure(self, session, draft):
        for path, value in session.state.fields.items():
            if value is None:
                draft.remove(path)
            else:
                draft.set(path, value)


def composes(**fields):
    return type("Composes", (Composes,), {"fields": fields})


def created(**fields):
    return {"type": "session.created", "event_id": "ev0", "session": {**DEFAULTS, **fields}}


def updated(number, **fields):
    return {"type": "session.updated", "event_id": f"ev{number}", "session": {**DEFAULTS, **fields}}


def refusal(event_id, param):
    error = {"type": "invalid_request_error", "code": "unknown_parameter", "param": param}
    return {
        "type": "error",
        "event_id": "err",
        "error": {**error, "message": "Unknown parameter", "event_id": event_id},
    }


def update(event_id=None, **session):
    named = {} if event_id is None else {"event_id": event_id}
    return {"type": "session.update", **named, "session": session}


async def test_the_first_thing_the_upstream_hears_is_what_stages_want():
    async with ChainHarness({"a": composes(tools=["x"]), "b": composes(tool_choice="auto")}) as chain:
        (sent,) = chain.upstream.take()
        assert sent["type"] == "session.update"
        assert sent["event_id"].startswith("rtp_")
        assert sent["session"] == {"type": "realtime", "tools": ["x"], "tool_choice": "auto"}
        await chain.upstream.send(created())
        (shown,) = chain.client.take()
        assert shown == created()
        await chain.upstream.send(updated(1, tools=["x"], tool_choice="auto"))
        assert chain.client.payloads == []  # the client did not cause it
        view = chain.session.view("a")
        assert view.effective["tools"] == ["x"]
        assert view.asked == {}


async def test_nothing_is_sent_when_no_stage_wants_anything_and_client_text_stays():
    async with ChainHarness({"a": composes()}) as chain:
        assert chain.upstream.payloads == []
        for text in (
            b'{"type" : "session.update", "session": {"instructions":"\\u0041", "x":1.0e0, "a.b": 1}}',
            b'{"session":{},"type":"session.update","event_id":7}',
            b'{"type":"session.update","session":7}',
            b'{"type":"session.update"}',
            b'{"type":"session.update","session":{"audio":null,"tools":null}}',
        ):
            await chain.client.send(text)
            assert chain.upstream.payloads.pop() == text


async def test_a_client_update_is_composed_and_echoed_as_asked():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        chain.session.view("a").state.fields = {"instructions": "be nice, and brief", "tracing": "auto"}
        await chain.client.send(update("u1", instructions="be rude", voice="v"))
        (sent,) = chain.upstream.take()
        assert sent == {
            "type": "session.update",
            "event_id": "u1",
            "session": {
                "type": "realtime",
                "instructions": "be nice, and brief",
                "voice": "v",
                "tracing": "auto",
            },
        }
        chain.client.take()
        await chain.upstream.send(updated(1, instructions="be nice, and brief", voice="v", tracing="auto"))
        (shown,) = chain.client.take()
        assert shown == updated(1, instructions="be rude", voice="v")


async def test_a_stage_that_asks_again():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        view = chain.session.view("a")
        view.state.fields = {"tools": ["x"]}
        for _ in range(10):
            view.reconfigure()
        await chain.settle()
        (sent,) = chain.upstream.take()
        assert sent["session"] == {"type": "realtime", "tools": ["x"]}
        await chain.upstream.send(updated(1, tools=["x"]))
        view.state.fields = {}
        view.reconfigure()
        await chain.settle()
        (sent,) = chain.upstream.take()
        assert sent["session"] == {"type": "realtime", "tools": []}  # back to the default
        await chain.upstream.send(updated(2))
        view.reconfigure()
        await chain.settle()
        assert chain.upstream.payloads == []  # nothing changed
        assert chain.client.take_types() == ["session.created"]


async def test_a_stage_that_takes_away_what_the_client_had_before():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        await chain.client.send(update(tools=["client's"]))
        await chain.upstream.send(updated(1, tools=["client's"]))
        chain.upstream.take()
        chain.session.view("a").state.fields = {"tools": None}
        await chain.client.send(update(tools=["another"]))
        (sent,) = chain.upstream.take()
        assert sent["session"] == {"type": "realtime", "tools": []}
        chain.client.take()
        await chain.upstream.send(updated(2, tools=[]))
        assert chain.client.take() == [updated(2, tools=["another"])]


async def test_a_replaced_upstream_is_told_everything():
    async with ChainHarness({"a": composes(tracing="auto")}) as chain:
        await chain.upstream.send(created())
        await chain.upstream.send(updated(1, tracing="auto"))
        await chain.client.send(update("u1", instructions="x"))  # still in flight
        second = await chain.replace_upstream("5 s of audio")
        (sent,) = second.take()
        assert sent["session"] == {"type": "realtime", "instructions": "x", "tracing": "auto"}
        assert sent["event_id"] == "u1"
        chain.client.take()
        await second.send(created())
        await second.send(updated(2, instructions="x", tracing="auto"))
        assert chain.client.take() == [updated(2, instructions="x")]  # the answer to the update in flight


async def test_one_replaced_before_it_had_said_anything_is_a_replacement_too():
    async with ChainHarness({"a": composes(tracing="auto")}) as chain:
        second = await chain.replace_upstream()
        (sent,) = second.take()
        assert sent["session"] == {"type": "realtime", "tracing": "auto"}
        await second.send(created())
        await second.send(updated(1, tracing="auto"))
        assert chain.client.take_types() == ["session.created"]


async def test_a_refused_field_of_the_hosts_is_left_out_and_the_client_never_knows(caplog):
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        chain.session.view("a").state.fields = {"tracing": "auto", "tool_choice": "none"}
        chain.client.take()
        for event_id in ("u1", None):
            await chain.client.send(update(event_id, instructions=f"x{event_id}"))
            (sent,) = chain.upstream.take()
            if event_id:
                await chain.upstream.send(refusal(sent["event_id"], "session.tracing.workflow"))
                assert chain.client.payloads == []
                (sent,) = chain.upstream.take()
            assert "tracing" not in sent["session"]
            assert sent["session"]["instructions"] == f"x{event_id}"
            await chain.upstream.send(updated(1, instructions=f"x{event_id}", tool_choice="none"))
            (shown,) = chain.client.take()
            assert shown == updated(1, instructions=f"x{event_id}")
    assert "tracing" in caplog.text


async def test_a_refused_field_that_the_client_sets_too_stays_the_clients():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        chain.session.view("a").state.fields = {"tools": ["client's", "host's"]}
        await chain.client.send(update("u1", tools=["client's"]))
        chain.upstream.take()
        chain.client.take()
        await chain.upstream.send(refusal("u1", "session.tools[1].name"))
        (sent,) = chain.upstream.take()
        assert sent["session"]["tools"] == ["client's"]
        assert chain.client.payloads == []


async def test_a_refused_field_of_the_clients_is_shown_and_the_hosts_part_still_applied():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        for event_id in ("u1", None):
            chain.client.take()
            chain.session.view("a").state.fields = {"tracing": f"t{event_id}"}
            await chain.client.send(update(event_id, nonsense=1, instructions="x"))
            (sent,) = chain.upstream.take()
            await chain.upstream.send(refusal(sent["event_id"], "session.nonsense"))
            (error,) = chain.client.take()
            assert error["error"]["event_id"] == event_id  # never an id of ours
            (sent,) = chain.upstream.take()
            assert sent["session"] == {"type": "realtime", "tracing": f"t{event_id}"}
            await chain.upstream.send(updated(1, tracing=f"t{event_id}"))
            assert chain.client.payloads == []
            assert chain.session.view("a").asked == {}


async def test_a_host_update_refused_as_a_whole_is_not_repeated_for_ever():
    async with ChainHarness({"a": composes(tracing="auto", tools=["x"])}) as chain:
        await chain.upstream.send(created())
        chain.client.take()
        (sent,) = chain.upstream.take()
        await chain.upstream.send(refusal(sent["event_id"], "session.tracing"))
        (sent,) = chain.upstream.take()
        assert sent["session"] == {"type": "realtime", "tools": ["x"]}
        await chain.upstream.send(refusal(None, "session"))
        assert chain.upstream.payloads == []
        assert chain.client.payloads == []


async def test_a_client_field_that_another_upstream_refuses_is_not_repeated_for_ever():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        await chain.client.send(update("u1", reasoning="high"))
        await chain.upstream.send(updated(1, reasoning="high"))
        second = await chain.replace_upstream()
        (sent,) = second.take()
        await second.send(refusal(sent["event_id"], "session.reasoning"))
        assert second.payloads == []


async def test_a_retry_does_not_undo_what_the_client_sent_since():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        chain.session.view("a").state.fields = {"tracing": "auto"}
        await chain.client.send(update("u1", instructions="old", voice="v"))
        await chain.client.send(update("u2", instructions="new"))
        chain.upstream.take()
        await chain.upstream.send(refusal("u1", "session.tracing"))
        (again,) = chain.upstream.take()
        assert again["event_id"] == "u1"
        assert again["session"] == {"type": "realtime", "voice": "v"}
        assert chain.session.view("a").asked == {"instructions": "new", "voice": "v"}


async def test_several_updates_in_flight_are_told_apart_by_their_order():
    async with ChainHarness({"a": composes()}) as chain:
        await chain.upstream.send(created())
        await chain.client.send(update(instructions="1"))
        chain.session.view("a").state.fields = {"tools": ["x"]}
        chain.session.view("a").reconfigure()
        await chain.settle()
        await chain.client.send(update(instructions="2"))
        assert [e["session"] for e in chain.upstream.take()] == [
            {"instructions": "1"},
            {"type": "realtime", "tools": ["x"]},
            {"instructions": "2"},
        ]
        chain.client.take()
        await chain.upstream.send(updated(1, instructions="1"))
        assert chain.client.take() == [updated(1, instructions="1")]
        await chain.upstream.send(updated(2, instructions="1", tools=["x"]))
        assert chain.client.payloads == []
        await chain.upstream.send(updated(3, instructions="2", tools=["x"]))
        assert chain.client.take() == [updated(3, instructions="2")]


async def test_unanswered_updates_are_bounded():
    async with ChainHarness({}) as chain:
        for number in range(120):
            await chain.client.send(update(f"u{number}", instructions="x"))
        assert len(chain.upstream.take()) == 100
        errors = chain.client.take()
        assert [e["error"]["event_id"] for e in errors] == [f"u{n}" for n in range(100, 120)]
        chain.check_fates()


async def test_the_model_in_an_update_is_checked_then_stripped():
    principal = Principal(id="p", models=frozenset({"good"}))
    async with ChainHarness({}, principal=principal) as chain:
        await chain.client.send(update("u1", model="bad", voice="v"))
        assert chain.upstream.payloads == []
        (error,) = chain.client.take()
        assert (error["error"]["code"], error["error"]["event_id"]) == ("model_not_allowed", "u1")
        await chain.client.send(update("u2", model="good", voice="v"))
        (sent,) = chain.upstream.take()
        assert sent["session"] == {"type": "realtime", "voice": "v"}


class Fails(Plugin[None, None]):
    def configure(self, session, draft):
        draft.set("tools", ["half done"])
        raise ValueError


class Unsendable(Plugin[None, None]):
    def configure(self, session, draft):
        draft.set("tools", object())


async def test_a_configure_hook_that_fails_changes_nothing(caplog):
    for plugin_type in (Fails, Unsendable):
        for policy in ("pass", "drop"):
            async with ChainHarness({"f": plugin_type}, on_error={"f": policy}) as chain:
                text = msgspec.json.encode(update("u", voice="v"))
                await chain.client.send(text)
                assert chain.upstream.payloads == [text]
                assert chain.session.ending is None
        async with ChainHarness({"f": plugin_type}, on_error={"f": "close"}) as chain:
            await chain.settle()
            assert chain.client.closing.code == 1011
    assert "internal error" not in caplog.text


async def test_updates_the_client_sends_stay_in_order_with_one_being_composed(autojump_clock):
    class Slow(Plugin[None, None]):
        async def configure(self, session, draft):
            await trio.sleep(0.1)
            draft.set("tools", [draft.get("instructions")])

    async with ChainHarness({"a": Slow}) as chain:
        for number in range(3):
            await chain.client.connection.send(msgspec.json.encode(update(instructions=f"{number}")))
            chain.session.reconfigure()
        chain.session._nursery.start_soon(chain.session.attach_upstream, _other(chain))
        await trio.sleep(3)
        told = [e["session"] for e in chain.second.take()]
        merged = {}
        for session in told:
            merged.update(session)
        assert merged["instructions"] == "2"
        assert merged["tools"] == ["2"]


def _other(chain):
    ours, theirs = memory_pair(1000)
    chain.second = End(theirs, chain.session._nursery)
    return ours
