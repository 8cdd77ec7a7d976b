"""Plugin instances: made, started in order, shut down in reverse."""

import pytest
import trio

from rtpipe import ConfigError, Plugin, Refused
from rtpipe.chain.guard import Guard
from rtpipe.chain.instances import Services, StageSpec, build_chain, change, line_up, start, stop

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


# --- other options for instances that live on


class Takes(Plugin[str, None]):
    def config_changed(self, before):
        calls.append(f"{self.stage} {before} to {self.config}")
        if self.config == "bad":
            raise ValueError("not this")


class TakesSlowly(Plugin[str, None]):
    async def config_changed(self):
        calls.append(f"{self.stage} to {self.config}")
        await trio.sleep_forever()


def with_options(plugin_type=Takes, **options):
    return [StageSpec(name, name, plugin_type, config) for name, config in options.items()]


async def lined_up(tmp_path, nursery, *specs):
    services = Services(Guard(), nursery, lambda stage: None, tmp_path, calls.append)
    return await line_up(specs, services), services


async def test_an_instance_that_takes_other_options_is_kept(tmp_path, nursery):
    before, services = await lined_up(tmp_path, nursery, *with_options(a="1", b="1"))
    wanted = with_options(a="2", b="1")
    lineup = await line_up(wanted, services, before)
    assert lineup is before
    await change(wanted, [lineup], services.guard)
    assert calls == ["a 1 to 2"]
    assert [instance.plugin.config for instance in lineup.instances.values()] == ["2", "1"]
    await change(wanted, [lineup], services.guard)
    assert calls == ["a 1 to 2"]


async def test_one_that_only_sessions_of_before_have_changes_too(tmp_path, nursery):
    before, services = await lined_up(tmp_path, nursery, *with_options(a="1"))
    without = await line_up([], services, before)
    again = await line_up(with_options(a="2"), services, without)
    assert again.instances["a"] is not before.instances["a"]
    await change(with_options(a="2"), [before, without, again], services.guard)
    assert calls == ["a 1 to 2"]


async def test_another_plugin_of_the_same_name_is_made(tmp_path, nursery):
    before, services = await lined_up(tmp_path, nursery, *with_options(a="1"))
    other = with_options(TakesSlowly, a="2")
    assert (await line_up(other, services, before)).instances["a"] is not before.instances["a"]
    await change(other, [before], services.guard)
    assert calls == []


async def test_options_that_one_does_not_take_are_taken_by_none(tmp_path, nursery):
    lineup, services = await lined_up(tmp_path, nursery, *with_options(a="1", b="1", c="1"))
    with pytest.raises(ConfigError, match="plugin b does not take its new options: ValueError: not this"):
        await change(with_options(a="2", b="bad", c="2"), [lineup], services.guard)
    assert calls == ["a 1 to 2", "b 1 to bad", "b bad to 1", "a 2 to 1"]
    assert {instance.plugin.config for instance in lineup.instances.values()} == {"1"}
    await change(with_options(a="3", b="1", c="1"), [lineup], services.guard)
    assert calls[-1] == "a 1 to 3"


async def test_a_change_that_is_cancelled_is_undone(tmp_path, nursery, autojump_clock):
    specs = [*with_options(a="1"), *with_options(TakesSlowly, b="1")]
    lineup, services = await lined_up(tmp_path, nursery, *specs)
    with trio.move_on_after(0.5) as scope:
        await change([*with_options(a="2"), *with_options(TakesSlowly, b="2")], [lineup], services.guard)
    assert scope.cancelled_caught
    assert calls == ["a 1 to 2", "b to 2", "b to 1", "a 2 to 1"]
