"""Plugin instances: made, started in order, shut down in reverse."""

import pytest
import trio

from rtpipe import ConfigError, Plugin, Refused
from rtpipe.chain.guard import Guard
from rtpipe.chain.instances import Services, StageSpec, build_chain, start, stop

calls = []


@pytest.fixture(autouse=True)
def _forget():
    calls.clear()


class Noted(Plugin[None, None]):
    async def startup(self):
        calls.append(f"start {self.stage}")

    async def shutdown(self):
        await trio.lowlevel.checkpoint()
        calls.append(f"stop {self.stage}")


class Stubborn(Noted):
    async def startup(self):
        raise OSError("no such thing")


class Refuses(Noted):
    async def startup(self):
        raise Refused(403, "no", "not me")


class Sleepy(Noted):
    async def startup(self):
        await trio.sleep_forever()

    async def shutdown(self):
        await trio.sleep_forever()


class Unmakeable(Plugin[None, None]):
    def __init__(self, config, host):
        raise SystemExit(3)


def specs(**types):
    return [StageSpec(name, name, plugin_type, None) for name, plugin_type in types.items()]


async def make(tmp_path, nursery, **types):
    services = Services(Guard(), nursery, lambda stage: None, tmp_path, calls.append)
    return await build_chain(specs(**types), services), services.guard


async def test_start_and_stop(tmp_path, nursery):
    chain, guard = await make(tmp_path, nursery, a=Noted, b=Noted)
    await start(chain, guard)
    await stop(chain, guard)
    assert calls == ["start a", "start b", "stop b", "stop a"]


@pytest.mark.parametrize("plugin_type", [Stubborn, Refuses, Sleepy])
async def test_one_that_does_not_start_is_named_and_the_others_shut_down(
    tmp_path, nursery, plugin_type, autojump_clock
):
    chain, guard = await make(tmp_path, nursery, a=Noted, b=plugin_type, c=Noted)
    with pytest.raises(ConfigError, match="plugin b does not start"):
        await start(chain, guard)
    assert calls == ["start a", "stop a"]


async def test_a_start_that_is_cancelled_shuts_down_what_had_started(tmp_path, nursery, autojump_clock):
    chain, guard = await make(tmp_path, nursery, a=Noted, b=Sleepy)
    with trio.move_on_after(1) as scope:
        await start(chain, guard)
    assert scope.cancelled_caught
    assert calls == ["start a", "stop a"]


async def test_a_shutdown_that_hangs_is_bounded_and_shielded(tmp_path, nursery, autojump_clock):
    chain, guard = await make(tmp_path, nursery, a=Noted, b=Sleepy)
    began = trio.current_time()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stop(chain, guard)
    assert calls == ["stop a"]
    assert trio.current_time() - began == pytest.approx(5)


async def test_one_that_cannot_be_made_is_named(tmp_path, nursery):
    with pytest.raises(ConfigError, match="plugin c cannot be made: SystemExit"):
        await make(tmp_path, nursery, a=Noted, c=Unmakeable)


async def test_tasks_of_an_instance_fail_alone(tmp_path, nursery):
    async def fail():
        raise ValueError("mine")

    chain, guard = await make(tmp_path, nursery, a=Noted)
    chain.stages[0].plugin.start_soon(fail)
    await trio.testing.wait_all_tasks_blocked()
    assert guard.failures == {("a", "task fail", "ValueError"): 1}
