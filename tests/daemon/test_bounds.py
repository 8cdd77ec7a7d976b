"""How much of everything there may be, and who is told so: each bound with its metric and its log line."""

import resource

import pytest
import trio

from rtpipe.daemon import metrics, pressure
from rtpipe.daemon.pressure import Pressure, cgroup_bytes
from rtpipe.session.limits import Budget
from tests.daemon.kit import bearer, client, in_process, meeting, refused, running, scripted
from tests.daemon.wire import WAIT_S, Ended, ask, get, read_head, upgrade
from tests.transport.test_forwarding import tcp4


def value(gateway, name, *labels):
    """A metric of a daemon in this process."""
    (found,) = [each for each in metrics.snapshot(gateway.process) if each.name == name]
    return found.values.get(labels, 0)


async def until(condition):
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the daemon tells nobody
            await trio.sleep(0.01)


async def test_connections_in_all(text, caplog):
    async with in_process(text(more="[limits]\nmax_connections = 2")) as gateway:
        idle = [await trio.open_tcp_stream(*gateway.address) for _ in range(2)]
        await until(lambda: gateway.process.crowd.connected == 2)
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
        assert answer.headers["retry-after"] == "5"
        assert value(gateway, "rtpipe_connections_turned_away", "connections") == 1
        assert "too many connections in all" in caplog.text
        for stream in idle:
            await trio.aclose_forcefully(stream)
        await until(lambda: not value(gateway, "rtpipe_connections"))
        assert (await refused(gateway.address, headers=[])).status == 401


async def test_connections_of_one_address(text, caplog):
    limits = "[limits]\nmax_connections_per_address = 1"
    async with scripted() as model, in_process(text(model.url, more=limits)) as gateway:
        async with meeting(gateway, model):
            answer = await refused(gateway.address)
            assert (answer.status, answer.error["code"]) == (429, "too_many_connections")
            assert "127.0.0.1 is turned away: too many connections from one address (1 so far)" in caplog.text
        await until(lambda: not value(gateway, "rtpipe_connections"))
        async with meeting(gateway, model):
            pass
    assert not gateway.process.crowd._by_address


async def test_who_is_told_is_bounded_too(text):
    """Of those who are too many, only some are told: the others would keep descriptors for it."""
    async with in_process(text(more="[limits]\nmax_connections = 1")) as gateway:
        many = [await trio.open_tcp_stream(*gateway.address) for _ in range(150)]
        await until(lambda: gateway.process.crowd.turned_away["connections"] == 149)
        assert gateway.process.crowd.connected <= 1 + 64
        for stream in many:
            await trio.aclose_forcefully(stream)


PROXIED = 'proxy = "{}"\ntrusted = ["127.0.0.1"]'


async def test_the_proxy_protocol(text):
    """Callers are who the balancer says: for the address in sight of plugins, and for the bounds."""
    limits = "[limits]\nmax_connections_per_address = 1"
    async with in_process(text(listen=PROXIED.format("v2"), more=limits)) as gateway:
        facts = []
        gateway.process.observer = facts.append
        one, other = "192.0.2.1", "192.0.2.2"
        async with await trio.open_tcp_stream(*gateway.address) as first:
            await first.send_all(tcp4(one))
            await until(lambda: gateway.process.crowd._by_address == {one: 1})
            assert (await ask(gateway.address, tcp4(one) + upgrade("/v1/realtime"))).status == 429
            assert (await ask(gateway.address, tcp4(other) + upgrade("/v1/realtime"))).status == 401
        assert facts[-1].address == other
        async with await trio.open_tcp_stream(*gateway.address) as silent:
            await silent.send_all(upgrade("/v1/realtime", bearer()))
            with pytest.raises(Ended):
                await read_head(silent)


async def test_forwarded(text):
    limits = "[limits]\nmax_connections_per_address = 1"
    listen = PROXIED.format("forwarded")
    async with scripted() as model, in_process(text(model.url, listen=listen, more=limits)) as gateway:
        one = [*bearer(), ("X-Forwarded-For", "6.6.6.6, 192.0.2.1")]
        other = [*bearer(), ("X-Forwarded-For", "192.0.2.2")]
        async with client(gateway.address, headers=one):
            answer = await refused(gateway.address, headers=one)
            assert (answer.status, answer.error["code"]) == (429, "too_many_connections")
            async with client(gateway.address, headers=other):
                assert gateway.process.crowd._by_address == {"192.0.2.1": 1, "192.0.2.2": 1}
        both = [("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "192.0.2.1")]
        assert (await get(gateway.address, "/readyz", both)).status == 400


async def test_who_is_not_trusted_says_what_he_likes(text):
    listen = 'proxy = "forwarded"\ntrusted = ["10.0.0.0/8"]'
    async with in_process(text(listen=listen)) as gateway:
        facts = []
        gateway.process.observer = facts.append
        assert (await refused(gateway.address, headers=[("X-Forwarded-For", "192.0.2.1")])).status == 401
        assert facts[-1].address == "127.0.0.1"


async def test_a_head_of_the_length_that_is_allowed(text):
    async with in_process(text(more="[limits]\nmax_head_bytes = 4096")) as gateway:
        assert (await get(gateway.address, "/readyz", [("X", "a" * 3900)])).status == 200
        answer = await get(gateway.address, "/readyz", [("X", "a" * 4096)])
        assert (answer.status, answer.error["message"]) == (431, "A request head may have 4096 bytes.")


async def test_out_of_file_descriptors(file, tmp_path):
    """Near the end nobody else is let in; at the end accepting waits; who is in stays in; then it goes on."""
    async with (
        scripted() as model,
        running(file(model.url)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        used = gateway.descriptors()
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (used + 10, 4096))
        many = [await trio.open_tcp_stream(*gateway.address) for _ in range(20)]
        await gateway.said("accept paused")
        await app.tell("still.here")
        assert (await upstream.event())["type"] == "still.here"
        for stream in many:
            await trio.aclose_forcefully(stream)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (used + 2, 4096))
        await gateway.said("new sessions are refused: descriptors")
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (4096, 4096))
        await gateway.said("new sessions are taken again")
        async with meeting(gateway, model):
            pass
    assert gateway.err.count("accept paused") == 1  # not a line for each try


async def test_short_of_memory(text, monkeypatch, caplog):
    monkeypatch.setattr(pressure, "resident_bytes", lambda: 50_000_000)
    more = "[limits]\nmax_memory_bytes = 100_000_000"
    async with scripted() as model, in_process(text(model.url, more=more)) as gateway:
        async with meeting(gateway, model) as (app, upstream):
            monkeypatch.setattr(pressure, "resident_bytes", lambda: 90_000_000)
            gateway.process.pressure.look()
            answer = await refused(gateway.address)
            assert (answer.status, answer.error["code"]) == (503, "overloaded")
            assert answer.error["message"] == "The gateway is short of memory; try again later."
            assert value(gateway, "rtpipe_overloaded", "memory") == 1
            assert "new sessions are refused: memory: 90000000 of 100000000 in use" in caplog.text
            await app.tell("still.here")
            assert (await upstream.event())["type"] == "still.here"
            monkeypatch.setattr(pressure, "resident_bytes", lambda: 86_000_000)
            gateway.process.pressure.look()  # not yet, or it would let in and refuse by turns
            assert (await refused(gateway.address)).status == 503
            monkeypatch.setattr(pressure, "resident_bytes", lambda: 80_000_000)
            gateway.process.pressure.look()
        async with meeting(gateway, model):
            pass


EATS = """
from rtpipe import Plugin, on_client

class Faulty(Plugin[None, None]):
    eaten = b""

    @on_client("eat")
    def eat(self, session, event):
        self.eaten = b"x" * 300_000_000

    @on_client("let.go")
    def let_go(self, session, event):
        self.eaten = b""
"""


async def test_a_plugin_that_eats_memory(file, plugin):
    """Nobody can stop it; but nobody else is let in, who is in stays in, and then it goes on."""
    more = "[limits]\nmax_memory_bytes = 300_000_000"
    async with (
        scripted() as model,
        running(file(model.url, chain=("auth", "faulty"), more=more), environment=plugin(EATS)) as gateway,
        meeting(gateway, model) as (app, upstream),
    ):
        await app.tell("eat")
        await gateway.said("new sessions are refused: memory: ")
        answer = await refused(gateway.address)
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        await app.tell("let.go")
        assert [(await upstream.event())["type"] for _ in range(2)] == ["eat", "let.go"]
        await gateway.said("new sessions are taken again")
        async with meeting(gateway, model):
            pass


async def test_what_the_process_has_is_measured():
    used = Pressure(lambda: None, Budget())
    used.look()
    assert used.used["memory"] > 10_000_000
    assert used.used["descriptors"] > 3
    before = used.used["tasks"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        used.look()
        assert used.used["tasks"] == before + 1
        nursery.cancel_scope.cancel()
    used.look()
    assert used.used["tasks"] == before


def test_the_smallest_limit_of_the_cgroups_counts(tmp_path):
    inner = tmp_path / "system.slice/rtpipe.service"
    inner.mkdir(parents=True)
    assert cgroup_bytes(tmp_path, "0::/system.slice/rtpipe.service\n") is None
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "system.slice/memory.max").write_text("1000\n")
    assert cgroup_bytes(tmp_path, "0::/system.slice/rtpipe.service\n") == 1000
    (inner / "memory.max").write_text("500\n")
    assert cgroup_bytes(tmp_path, "0::/system.slice/rtpipe.service\n") == 500
    assert cgroup_bytes(tmp_path, "5:memory:/x\n") is None


async def test_too_many_held_bytes_are_told_now_and_then(autojump_clock, caplog):
    held = Budget(limit=100, held=90)
    pressure = Pressure(lambda: None, held)
    pressure.look()
    assert not caplog.messages
    for _ in range(3):
        held.met += 1
        pressure.look()
    line = "max_held_bytes was too little %d times so far: now 90 of 100 bytes are held"
    assert caplog.messages == [line % 1]
    await trio.sleep(10)
    pressure.look()
    pressure.look()
    assert caplog.messages == [line % 1, line % 3]
    await trio.sleep(60)
    pressure.look()
    assert len(caplog.messages) == 2


async def test_what_all_stages_hold_together(text, plugin, caplog):
    plugin(
        """
        from rtpipe import Hold, Plugin, on_client
        class Faulty(Plugin[None, None]):
            @on_client("keep")
            def keep(self, session, event):
                return Hold("for ever")
        """
    )
    more = "[limits]\nmax_held_bytes = 1_048_576"
    async with (
        scripted() as model,
        in_process(text(model.url, chain=("auth", "faulty"), more=more)) as gateway,
    ):
        async with meeting(gateway, model) as (one, _), meeting(gateway, model) as (other, _):
            for app in (one, other):
                await app.tell("keep", padding="x" * 500_000, event_id="first")
            await until(lambda: value(gateway, "rtpipe_held_bytes") > 1_000_000)
            await other.tell("keep", padding="x" * 500_000, event_id="one too many")
            refusal = await other.event()
            assert (refusal["type"], refusal["error"]["event_id"]) == ("error", "one too many")
            assert value(gateway, "rtpipe_held_bytes_exceeded") == 1
            await until(lambda: "max_held_bytes was too little 1 times so far" in caplog.text)
        await until(lambda: not value(gateway, "rtpipe_held_bytes"))
    assert gateway.process.held.held == 0


@pytest.mark.parametrize(
    ("listen", "what"),
    [
        ('proxy = "v2"', "listen[0].proxy: whose word counts?"),
        ('trusted = ["10.0.0.1"]', "listen[0].trusted: trusted with what?"),
        ('proxy = "v2"\ntrusted = ["10.0.0.1/8"]', "listen[0].trusted[0]: expected an address or a network"),
        ('proxy = "v1"\ntrusted = ["10.0.0.1"]', "listen[0].proxy:"),
    ],
)
def test_what_an_operator_gets_wrong(text, listen, what):
    from rtpipe import ConfigError
    from rtpipe.daemon.config_load import from_text

    with pytest.raises(ConfigError) as caught:
        from_text(text(listen=listen), "x.toml")
    assert what in str(caught.value)
