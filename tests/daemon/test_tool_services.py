"""Tool services: who may offer what, who is asked, and what becomes of calls when nobody answers."""

import logging

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.principal import Principal
from rtpipe.api.tools import ToolCall
from rtpipe.daemon import tool_services
from rtpipe.daemon.messages import ToolResult
from rtpipe.daemon.tool_services import Service, ToolServices

CALL = ToolCall(call_id="call_1", name="dice", arguments='{"sides": 6}')
DESK = Principal(id="desk")


class Changes:
    """Counts how often sessions would have been composed anew."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def changes():
    return Changes()


@pytest.fixture
def services(changes):
    return ToolServices(changes)


def raw(*tools):
    tools = [{"name": each} if isinstance(each, str) else each for each in tools]
    return [msgspec.Raw(msgspec.json.encode(each)) for each in tools]


def names(services):
    return [tool.name for tool in services.offered_tools()]


async def told(service: Service):
    return [msgspec.json.decode(line) for line in await service.next_lines()]


def result(call_id, **fields):
    return msgspec.json.decode(
        msgspec.json.encode({"type": "rtpipe.tool.result", "call_id": call_id, **fields}), type=ToolResult
    )


class Asked:
    """Calls under way, each in a task."""

    def __init__(self, services, nursery):
        self.services = services
        self.nursery = nursery
        self.answers = []

    async def ask(self, call=CALL, timeout_s=5.0):
        """Returns the scope that cancels it."""
        scope = trio.CancelScope()

        async def run():
            with scope:
                try:
                    self.answers.append(await self.services.answer_tool("sess_1", "app", call, timeout_s))
                except HookFailed as exc:
                    self.answers.append(exc.why)

        self.nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        return scope


@pytest.fixture
async def asked(services, nursery):
    return Asked(services, nursery)


async def test_a_call_and_its_answer(services, asked):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        (registered,) = await told(service)
        assert registered == {"type": "rtpipe.tools.registered", "names": ["dice"]}
        await asked.ask()
        (call,) = await told(service)
        assert call.pop("call_id").startswith("rtp_")
        assert call == {
            "type": "rtpipe.tool.call",
            "name": "dice",
            "arguments": {"sides": 6},
            "session": "sess_1",
            "principal": "app",
            "deadline_ms": 5000,
        }
        (call_id,) = service.calls
        services.answered(service, result(call_id, result=4))
        await trio.testing.wait_all_tasks_blocked()
        assert asked.answers == ["4"]
        assert not service.calls


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"result": "sunny"}, "sunny"),
        ({"result": {"a": [1, None]}}, '{"a":[1,null]}'),
        ({"result": None}, "null"),
        (
            {"error": "Closed today.", "retry": "later"},
            '{"status":"error","error":"Closed today.","retry":"later"}',
        ),
        ({"error": "No."}, '{"status":"error","error":"No.","retry":"no"}'),
        ({}, "its service gave not one of result and error"),
        ({"result": 1, "error": "x"}, "its service gave not one of result and error"),
    ],
)
async def test_what_an_answer_may_be(services, asked, fields, answer):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        await asked.ask()
        (call_id,) = service.calls
        services.answered(service, result(call_id, **fields))
        await trio.testing.wait_all_tasks_blocked()
        assert asked.answers == [answer]
        lines = await told(service)
        assert (lines[-1]["type"] == "rtpipe.error") == answer.startswith("its service")


async def test_what_a_tool_says_of_its_calls_is_offered(services):
    tool = {
        "name": "pay",
        "description": "Pays.",
        "parameters": {"type": "object"},
        "timeout_ms": 250,
        "cancellable": True,
        "confirm": True,
        "late": "offer",
        "cache_ttl_s": 2.5,
        "mask": ["card.number"],
    }
    with services.connected(DESK) as service:
        services.register(service, raw(tool))
        (offered,) = services.offered_tools()
    assert msgspec.structs.asdict(offered) == {
        **{key: value for key, value in tool.items() if key != "timeout_ms"},
        "timeout_s": 0.25,
        "mask": ("card.number",),
    }


@pytest.mark.parametrize(
    ("tool", "code", "name"),
    [
        ("door_open", "name_not_allowed", "door_open"),
        ({"name": "two words"}, "bad_tool", "two words"),
        ({"name": "x" * 65}, "bad_tool", "x" * 64),
        ({"description": "without a name"}, "bad_tool", None),
        ({"name": "light_on", "timeout": 3}, "bad_tool", "light_on"),
        ({"name": "light_on", "timeout_ms": 0}, "bad_tool", "light_on"),
        ({"name": "light_on", "parameters": []}, "bad_tool", "light_on"),
        ({"name": "light_on", "description": "x" * 40_000}, "tool_too_large", "light_on"),
        (7, "bad_tool", None),
        ("light_off", "name_twice", "light_off"),
        ("light_taken", "name_taken", "light_taken"),
    ],
)
async def test_a_tool_that_is_not_offered(services, tool, code, name):
    """It is named in an error, and the others are offered all the same."""
    with (
        services.connected(Principal(id="other")) as other,
        services.connected(Principal(id="desk", tools=frozenset({"light_*"}))) as service,
    ):
        services.register(other, raw("light_taken"))
        services.register(service, raw("light_off", tool))
        error, registered = await told(service)
        assert (error["type"], error["code"], error["name"]) == ("rtpipe.error", code, name)
        assert registered["names"] == ["light_off"]
        assert names(services) == ["light_taken", "light_off"]


async def test_no_more_tools_than_a_connection_may_offer(services, monkeypatch):
    monkeypatch.setattr(tool_services, "MAX_TOOLS", 2)
    with services.connected(DESK) as service:
        services.register(service, raw("a", "b", "c"))
        error, registered = await told(service)
        assert (error["code"], error["name"]) == ("too_many_tools", "c")
        assert registered["names"] == ["a", "b"]


async def test_no_more_services_than_there_may_be(services, monkeypatch):
    monkeypatch.setattr(tool_services, "MAX_SERVICES", 1)
    with (
        services.connected(DESK),
        pytest.raises(Refused, match="1 tool services"),
        services.connected(DESK),
    ):
        raise AssertionError
    with services.connected(DESK):
        pass


async def test_sessions_are_composed_anew_when_the_tools_change_and_only_then(services, changes):
    with services.connected(DESK) as service:
        assert changes.count == 0
        services.register(service, raw("dice"))
        assert changes.count == 1
        services.register(service, raw("dice"))
        assert changes.count == 1
        services.register(service, raw("coin"))
        assert (changes.count, names(services)) == (2, ["coin"])
    assert (changes.count, names(services)) == (3, [])


async def test_a_name_is_free_again_when_its_service_is_gone(services):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
    with services.connected(Principal(id="other")) as service:
        services.register(service, raw("dice"))
        assert names(services) == ["dice"]


async def test_the_newest_description_of_a_principals_counts(services):
    with services.connected(DESK) as old, services.connected(DESK) as new:
        services.register(new, raw({"name": "dice", "description": "new"}))
        services.register(old, raw({"name": "dice", "description": "old"}))
        assert [tool.description for tool in services.offered_tools()] == ["old"]


async def test_who_has_least_to_do_is_asked_and_then_who_was_not_asked_for_longest(services, asked):
    with services.connected(DESK) as one, services.connected(DESK) as two:
        for each in (one, two):
            services.register(each, raw("dice"))
        for _ in range(4):
            await asked.ask()
        assert [len(one.calls), len(two.calls)] == [2, 2]
        for call_id in list(two.calls):
            services.answered(two, result(call_id, result=1))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            await asked.ask()
        assert [len(one.calls), len(two.calls)] == [2, 2]
        for each in (one, two):
            for call_id in list(each.calls):
                services.answered(each, result(call_id, result=1))
        await trio.testing.wait_all_tasks_blocked()
        for expected in (one, two, one, two):  # none has anything to do: they take turns
            await asked.ask()
            assert list(expected.calls)
            for call_id in list(expected.calls):
                services.answered(expected, result(call_id, result=1))
            await trio.testing.wait_all_tasks_blocked()


async def test_calls_fail_at_once_when_their_service_is_gone(services, asked, caplog):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        await asked.ask(timeout_s=1000)
    await trio.testing.wait_all_tasks_blocked()
    assert asked.answers == ["its service is gone"]
    assert await services.answer_tool("sess_1", "app", CALL, 1) is None
    assert services.outcomes == {"failed": 1}


async def test_a_call_that_takes_too_long(services, asked, autojump_clock):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        await asked.ask(timeout_s=2.5)
        (call_id,) = service.calls
        await told(service)
        await trio.sleep(2.4)
        assert asked.answers == []
        await trio.sleep(0.2)
        assert asked.answers == ["took longer than 2.5 s"]
        services.answered(service, result(call_id, result="late"))
        cancel, error = await told(service)
        assert cancel == {"type": "rtpipe.tool.cancel", "call_id": call_id, "reason": "timeout"}
        assert (error["type"], error["code"], error["call_id"]) == ("rtpipe.error", "unknown_call", call_id)
        assert services.outcomes == {"timeout": 1, "unawaited": 1}


@pytest.mark.parametrize("reason", [None, "barge_in", "session_end"])
async def test_a_call_that_is_given_up(services, asked, reason):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        scope = await asked.ask()
        (call_id,) = service.calls
        await told(service)
        scope.cancel(reason=reason)
        await trio.testing.wait_all_tasks_blocked()
        assert await told(service) == [
            {"type": "rtpipe.tool.cancel", "call_id": call_id, "reason": reason or "cancelled"}
        ]
        assert not service.calls


async def test_a_deadline_of_the_caller_s_own_is_a_timeout(services, autojump_clock):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        with trio.move_on_after(1):
            await services.answer_tool("sess_1", "app", CALL, 5)
        assert (await told(service))[-1]["reason"] == "timeout"


async def test_no_more_open_calls_than_there_may_be(services, asked, monkeypatch):
    monkeypatch.setattr(tool_services, "MAX_OPEN_CALLS", 1)
    with services.connected(DESK) as one, services.connected(DESK) as two:
        for each in (one, two):
            services.register(each, raw("dice"))
        for _ in range(3):
            await asked.ask()
        assert asked.answers == ["1 calls wait for each of its services"]
        assert (len(one.calls), len(two.calls)) == (1, 1)


async def test_a_result_that_is_too_large(services, asked, monkeypatch):
    monkeypatch.setattr(tool_services, "MAX_RESULT_BYTES", 10)
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        await asked.ask()
        (call_id,) = service.calls
        services.answered(service, result(call_id, result="x" * 9))
        await trio.testing.wait_all_tasks_blocked()
        assert asked.answers == ["its result has more than 10 bytes"]
        assert (await told(service))[-1]["code"] == "result_too_large"


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (b"1e999", "1e999"),
        (b"9" * 5000, "9" * 5000),
        (b'{"a":' + b"[" * 400 + b"]" * 400 + b"}", '{"a":' + "[" * 400 + "]" * 400 + "}"),
        (b'{"status":"success","result":{"status":"error","error":"x"}}', None),
        (b'"\\u0000\\u001b[31m"', "\x00\x1b[31m"),
        (b'"\xff"', "its result is no JSON"),
        (b'["\xff"]', "its result is no JSON"),
    ],
    ids=lambda each: None if each is None else str(each[:20]),
)
async def test_odd_results(services, asked, written, answer):
    """What a number or a nested value is, is for the model to read."""
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        await asked.ask()
        (call_id,) = service.calls
        services.answered(service, ToolResult(call_id=call_id, result=msgspec.Raw(written)))
        await trio.testing.wait_all_tasks_blocked()
        assert asked.answers == [written.decode() if answer is None else answer]
        refused = [each for each in await told(service) if each["type"] == "rtpipe.error"]
        assert [each["code"] for each in refused] == ["bad_result"] * (answer == "its result is no JSON")


@pytest.mark.parametrize("arguments", ["", "{", "[]", '"\ud800"'])
async def test_arguments_that_are_no_object_are_sent_to_nobody(services, arguments):
    with services.connected(DESK) as service:
        services.register(service, raw("dice"))
        await told(service)
        call = ToolCall(call_id="call_1", name="dice", arguments=arguments)
        with pytest.raises(HookFailed, match="no JSON object"):
            await services.answer_tool("sess_1", "app", call, 1)
        assert not service.calls


async def test_a_service_that_does_not_read_is_closed(services, monkeypatch):
    monkeypatch.setattr(tool_services, "MAX_UNREAD_LINES", 3)
    with services.connected(DESK) as service:
        for _ in range(4):
            services.answered(service, result("rtp_none", result=1))
        assert service.ending == (1013, "the service does not read what it is told")
        assert len(await service.next_lines()) == 3
        assert await service.next_lines() == []


async def test_the_log_names_who_offers_what(services, caplog):
    caplog.set_level(logging.INFO)
    with services.connected(DESK) as service:
        services.register(service, raw("dice", "coin"))
    assert [each.getMessage() for each in caplog.records] == [
        "tools of desk: dice, coin",
        "tools of desk are gone: dice, coin",
    ]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 1)),
        st.tuples(st.just("answer"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 1)),
    ),
    max_size=30,
)


@given(steps)
def test_every_call_ends_once_and_as_it_was_answered(script):
    """Whatever the order of questions, answers, cancellations and departures."""
    trio.run(_play, script)


async def _play(script):
    services = ToolServices(lambda: None)
    outcomes = {}
    async with trio.open_nursery() as nursery:
        stacks = [services.connected(Principal(id=str(n))) for n in range(2)]
        there = [each.__enter__() for each in stacks]
        for n, service in enumerate(there):
            services.register(service, raw(f"tool{n}"))
        scopes, open_calls, count = {}, {}, 0

        async def ask(number, tool):
            call = ToolCall(call_id="same", name=f"tool{tool}", arguments="{}")
            with scopes[number]:
                try:
                    outcomes[number] = await services.answer_tool("s", "p", call, 5)
                except HookFailed as exc:
                    outcomes[number] = exc.why
            outcomes.setdefault(number, "cancelled")

        expected = {}
        for step, which in script:
            if step == "ask":
                count += 1
                scopes[count] = trio.CancelScope()
                before = {call_id for each in there for call_id in each.calls}
                nursery.start_soon(ask, count, which)
                await trio.testing.wait_all_tasks_blocked()
                for service in there:
                    for call_id in set(service.calls) - before:
                        open_calls[count] = (service, call_id)
                expected[count] = None  # nobody offers it
            elif step == "leave" and stacks[which] is not None:
                stacks[which].__exit__(None, None, None)
                stacks[which] = None
                for number, (service, _) in list(open_calls.items()):
                    if service is there[which]:
                        expected[number] = "its service is gone"
                        del open_calls[number]
            elif open_calls and step in ("answer", "cancel"):
                number = sorted(open_calls)[which % len(open_calls)]
                service, call_id = open_calls.pop(number)
                if step == "answer":
                    services.answered(service, result(call_id, result=str(number)))
                    expected[number] = str(number)
                else:
                    scopes[number].cancel()
                    expected[number] = "cancelled"
            await trio.testing.wait_all_tasks_blocked()
        for number in open_calls:
            scopes[number].cancel()
            expected[number] = "cancelled"
        await trio.testing.wait_all_tasks_blocked()
        for stack in stacks:
            if stack is not None:
                stack.__exit__(None, None, None)
    assert outcomes == expected
    assert not any(each.calls for each in there)
