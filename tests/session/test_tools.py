"""Tools of stages and of the host: in which order they are offered and asked."""

import pytest
import trio

from rtpipe import HookFailed, Plugin, Tool, ToolCall, on_client
from rtpipe.testing import ChainHarness


def tool(name, description=""):
    return Tool(name=name, description=description, parameters={})


class Offers(Plugin[None, None]):
    """Offers what the test sets, and answers it with the stage's name."""

    def startup(self):
        self.offered = [tool("both", self.stage), tool(self.stage)]

    def tools(self):
        return self.offered

    def tool_call(self, call):
        return self.stage if call.name in [each.name for each in self.offered] else None


class Composes(Plugin[None, None]):
    """Writes the names of what is offered into the configuration."""

    async def configure(self, session, draft):
        draft.set(
            "tools", [{"type": "function", "name": each.name} for each in await session.offered_tools()]
        )


class Host:
    def offered_tools(self):
        return [tool("both", "host"), tool("of_host")]

    async def answer_tool(self, session, principal, call, timeout_s):
        return f"host {session} {principal} {timeout_s:g}" if call.name == "of_host" else None


def names(event):
    return [each["name"] for each in event["session"]["tools"]]


async def test_the_first_of_one_name_is_offered_and_asked():
    async with ChainHarness({"one": Offers, "two": Offers, "composes": Composes}) as chain:
        chain.session.host_tools = Host()
        view = chain.session.view("composes")
        offered = [(each.name, each.description) for each in await view.offered_tools()]
        assert offered == [("both", "one"), ("one", ""), ("two", ""), ("of_host", "")]

        async def answer(name):
            return await view.answer_tool(ToolCall(call_id="c", name=name, arguments="{}"), 2.0)

        assert [await answer(name) for name in ("both", "two", "none")] == ["one", "two", None]
        assert await answer("of_host") == f"host {chain.session.id} anonymous 2"


async def test_the_host_s_failure_is_the_asker_s_to_see():
    class Failing(Host):
        async def answer_tool(self, session, principal, call, timeout_s):
            raise HookFailed("host", "tool of_host", "no")

    async with ChainHarness({"composes": Composes}) as chain:
        chain.session.host_tools = Failing()
        view = chain.session.view("composes")
        with pytest.raises(HookFailed, match="no"):
            await view.answer_tool(ToolCall(call_id="c", name="of_host", arguments="{}"), 2.0)


async def test_a_plugin_says_that_its_tools_have_changed(autojump_clock):
    async with ChainHarness({"one": Offers, "composes": Composes}) as chain:
        created = {"type": "session.created", "session": {"type": "realtime", "id": "s"}}
        await chain.upstream.send(created)
        (update,) = chain.upstream.take()
        assert names(update) == ["both", "one"]
        await chain.upstream.send({"type": "session.updated", "session": update["session"]})
        plugin = chain.plugin("one")
        plugin.offered = [*plugin.offered, tool("new")]
        plugin.tools_changed()
        await chain.settle()
        (update,) = chain.upstream.take()
        assert names(update) == ["both", "one", "new"]


async def test_the_tasks_of_a_session_learn_that_it_has_ended():
    reasons = []

    class Waits(Plugin[None, None]):
        @on_client("response.create")
        def wait(self, session, event):
            session.start_soon(self.until_the_end)

        async def until_the_end(self):
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                reasons.append(exc.reason)
                raise

    async with ChainHarness({"waits": Waits}) as chain:
        await chain.client.send({"type": "response.create"})
        assert reasons == []
    assert reasons == ["session_end"]
