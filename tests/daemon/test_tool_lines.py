"""Tool services through the whole daemon: over JSON lines, in plain shell, and against those who may not."""

import hashlib
import shutil
import signal
import subprocess
from functools import partial

import msgspec
import pytest
import trio

from tests.daemon.kit import KEY, MODEL, running
from tests.daemon.lines import ask, reloadable, speaking
from tests.daemon.test_json_lines import ADMIN, RUN, TEXT, says, text_of
from tests.daemon.wire import WAIT_S
from tests.docs.pages import block

PAGE = "config/README.md"
TOOLS_KEY, OTHER_KEY = "sk-of-the-desk", "sk-of-another"

DISPATCHER = """
from rtpipe import Event, HookFailed, Plugin, ToolCall, on_server

class Dispatcher(Plugin[None, None]):
    async def configure(self, session, draft):
        tools = await session.offered_tools()
        draft.set("tools", [
            {"type": "function", "name": each.name, "description": each.description,
             "parameters": each.parameters or {"type": "object", "properties": {}}}
            for each in tools
        ])

    @on_server("response.output_item.done")
    def dispatch(self, session, event):
        item = event.data["item"]
        if item["type"] == "function_call":
            session.start_soon(self.answer, session, item)

    async def answer(self, session, item):
        call = ToolCall(call_id=item["call_id"], name=item["name"], arguments=item["arguments"])
        try:
            output = await session.answer_tool(call, 20)
        except HookFailed as exc:
            output = f"failed: {exc.why}"
        item = {"type": "function_call_output", "call_id": call.call_id, "output": output or "nobody"}
        session.send_upstream(Event({"type": "conversation.item.create", "item": item}))
        session.send_upstream(Event({"type": "response.create"}), audible=True)
"""


def key_table(name, key, more=""):
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f'[[plugins.auth.keys]]\nid = "{name}"\nsha256 = "{digest}"\n{more}\n'


@pytest.fixture
def door(place, file, plugin):
    """Write a configuration with a Unix socket, callers with the role tools, and a stage that dispatches."""
    environment = plugin(DISPATCHER, "dispatcher")

    def write(more=""):
        path = file(
            chain=("auth", "dispatcher"),
            more=f'[[listen]]\naddress = "unix:{place}"\n'
            + key_table("desk", TOOLS_KEY, 'roles = ["tools"]\ntools = ["shop_*", "opening_hours"]')
            + key_table("other", OTHER_KEY, 'roles = ["tools", "session"]')
            + more,
        )
        return path, environment

    return write


async def registered(lines, *names):
    """Offer tools of these names; returns those that are offered, and what is wrong with the others."""
    await lines.tell("rtpipe.tools.register", tools=[{"name": name, "timeout_ms": 100} for name in names])
    said = await lines.until("rtpipe.tools.registered")
    return said[-1]["names"], [each["code"] for each in said if each["type"] == "rtpipe.error"]


def serving(place, key=TOOLS_KEY):
    return speaking(place, role="tools", key=key)


def calling(place):
    return speaking(place, role="session", model=MODEL, key=KEY)


async def configured(lines):
    """Greeted, and asked to answer in text."""
    await lines.until("session.created")
    await lines.tell("session.update", session=TEXT)
    await lines.until("session.updated")


async def answer_to(lines, words):
    """What the model says in the end."""
    await says(lines, words)
    said = []
    while not text_of(said):
        said = await lines.until("response.done")
    return text_of(said)


async def test_a_service_answers_calls_of_sessions_before_and_after_it(door, place):
    path, environment = door()
    async with running(path, *RUN, environment=environment), calling(place) as before:
        await configured(before)
        async with serving(place) as service:
            assert await service.next() == {
                "type": "rtpipe.welcome",
                "principal": "desk",
                "session": None,
                "version": 1,
            }
            assert await registered(service, "shop_stock") == (["shop_stock"], [])
            async with calling(place) as after, trio.open_nursery() as nursery:
                await configured(after)
                answers = {}

                async def say(lines, what):
                    answers[what] = await answer_to(lines, f'call shop_stock {{"of": "{what}"}}')

                nursery.start_soon(say, before, "tea")
                nursery.start_soon(say, after, "milk")
                calls = [await service.next() for _ in range(2)]
                assert {call["arguments"]["of"] for call in calls} == {"tea", "milk"}
                assert {call["principal"] for call in calls} == {"app"}
                assert len({call["session"] for call in calls}) == 2
                for call in reversed(calls):
                    result = {"left": call["arguments"]["of"]}
                    await service.tell("rtpipe.tool.result", call_id=call["call_id"], result=result)
            assert answers == {each: f'The tool answered: {{"left":"{each}"}}' for each in ("tea", "milk")}


async def test_a_service_that_leaves_fails_its_calls_and_takes_its_tools_away(door, place):
    path, environment = door()
    async with running(path, *RUN, environment=environment), calling(place) as lines:
        await configured(lines)
        async with serving(place) as service:
            await registered(service, "shop_stock")
            await says(lines, "call shop_stock {}")
            await service.until("rtpipe.tool.call")
        said = []
        while not text_of(said):
            said = await lines.until("response.done")
        assert text_of(said) == "The tool answered: failed: its service is gone"
        # It is not announced any more: the model only says what it was told.
        assert await answer_to(lines, "call shop_stock {}") == "You said: call shop_stock {}"


async def test_the_end_of_a_session_cancels_its_calls(door, place):
    path, environment = door()
    async with running(path, *RUN, environment=environment), serving(place) as service:
        await registered(service, "shop_stock")
        async with calling(place) as lines:
            await configured(lines)
            await says(lines, "call shop_stock {}")
            call = (await service.until("rtpipe.tool.call"))[-1]
        cancel = await service.next()
        assert (cancel["type"], cancel["call_id"]) == ("rtpipe.tool.cancel", call["call_id"])
        assert cancel["reason"] == "session_end"
        await service.tell("rtpipe.tool.result", call_id=call["call_id"], result=1)
        error = await service.next()
        assert (error["type"], error["code"], error["call_id"]) == (
            "rtpipe.error",
            "unknown_call",
            call["call_id"],
        )


async def test_who_may_offer_what(door, place):
    path, _ = door()
    async with reloadable(path), serving(place) as desk, serving(place, OTHER_KEY) as other:
        await desk.next()
        await other.next()
        assert await registered(desk, "shop_stock", "door_open") == (["shop_stock"], ["name_not_allowed"])
        assert await registered(other, "shop_stock", "door_open") == (["door_open"], ["name_taken"])
        async with serving(place, KEY) as refused:
            (answer,) = await refused.rest()
            assert (answer["status"], answer["code"]) == (403, "role_not_allowed")
        async with serving(place, "sk-wrong") as refused:
            (answer,) = await refused.rest()
            assert (answer["status"], answer["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"type":"response.create"}',
        b'{"type":"rtpipe.tools.register"}',
        b"[" * 100_000,
        b'{"type":"rtpipe.tool.result","call_id":7,"result":1}',
        b'{"type":"rtpipe.tool.result","call_id":null,"result":1}',
        b'{"type":"rtpipe.tool.result","call_id":["x"],"result":1}',
        b'{"type":"rtpipe.tool.result","call_id":"x","error":{"a":1}}',
        b'{"type":"rtpipe.tool.result","call_id":"x","error":"a","retry":"often"}',
        b'{"type":"rtpipe.tool.result","call_id":"x","result":"\\ud800"}',
        b'{"type":"rtpipe.tool.result","call_id":"x","result":NaN}',
        b'{"type":"rtpipe.tool.result","call_id":"x","result":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
    ids=lambda line: line[-24:].decode(),
)
async def test_lines_that_count_for_nothing(door, place, line):
    path, _ = door()
    async with reloadable(path), serving(place) as service:
        await service.next()
        await service.send(line + b"\n")
        error = await service.next()
        assert (error["type"], error["code"]) == ("rtpipe.error", "bad_line")
        assert await registered(service, "shop_stock") == (["shop_stock"], [])


async def test_the_end_of_the_daemon(door, place):
    path, environment = door()
    async with running(path, *RUN, environment=environment) as gateway, serving(place) as service:
        await registered(service, "shop_stock")
        gateway.signal(signal.SIGTERM)
        assert (await service.rest())[-1] == {
            "type": "rtpipe.closed",
            "code": 1001,
            "reason": "the gateway is stopping",
        }


async def test_services_and_their_calls_are_in_the_metrics(door, place):
    admin = place.with_name("admin.sock")
    path, _ = door(ADMIN.format(admin))
    async with reloadable(path), serving(place) as service:
        await registered(service, "shop_stock")
        await service.tell("rtpipe.tool.result", call_id="none", result=1)
        await service.until("rtpipe.error")
        metrics = (await ask(admin, "/metrics")).rest.decode()
        assert "rtpipe_tool_services 1.0" in metrics
        assert 'rtpipe_tool_calls_total{outcome="unawaited"} 1.0' in metrics


@pytest.mark.skipif(shutil.which("socat") is None, reason="needs socat")
async def test_the_shell_script_of_the_readme(door, place, tmp_path):
    path, environment = door()
    script = tmp_path / "opening_hours.sh"
    script.write_text(block(PAGE, "tested: tool-service").replace("…", TOOLS_KEY))
    script.chmod(0o700)
    command = block(PAGE, "tested: tool-service-run").replace("/run/rtpipe/rtpipe.sock", str(place))
    async with running(path, *RUN, environment=environment) as gateway, trio.open_nursery() as nursery:
        shell = ["/bin/sh", "-c", f"exec {command}"]
        nursery.start_soon(partial(trio.run_process, shell, cwd=tmp_path, stderr=subprocess.DEVNULL))
        with trio.fail_after(WAIT_S):
            await gateway.said("tools of desk: opening_hours")
        async with calling(place) as lines:
            await configured(lines)
            for quoted in ("Monday", '"call_id":"x"'):
                words = f"call opening_hours {msgspec.json.encode({'day': quoted}).decode()}"
                assert await answer_to(lines, words) == "The tool answered: nine to five"
        nursery.cancel_scope.cancel()
